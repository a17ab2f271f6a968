#!/bin/sh
# Runs in the guest: finds the library among the nodes of the kernel (/dev/sgN), makes it the physical
# library of a pair, backs up, copies, reads back and compares. Exits with 0 if it is the same.
cd /tmp || exit 1
twinreel remote-engine discover >found.toml || exit 1
cat found.toml
grep -q 'changer = "/dev/sg' found.toml || exit 1
twinreel init pair >/dev/null || exit 1
awk '/^\[\[physical_library\]\]/ { skip = 1; next } /^\[/ { skip = 0 } !skip' pair/remote.toml >kept
cat kept found.toml >pair/remote.toml
twinreel remote-engine serve --config pair/remote.toml >remote.log 2>&1 & remote=$!
twinreel local-engine serve --config pair/local.toml >local.log 2>&1 & local=$!
i=0
until twinreel libraries --config pair/local.toml 2>/dev/null | grep -q dr-ptl0/drive1; do
  i=$((i + 1)); [ $i -lt 200 ] || break; sleep 0.3
done
twinreel libraries --config pair/local.toml
head -c 5000000 /dev/urandom >in
twinreel dma backup in --config pair/local.toml --target vtl0:VTA001L8 &&
  twinreel dma copy --config pair/local.toml --source vtl0:VTA001L8 --target dr-ptl0:TGT003L6 &&
  twinreel dma restore out --config pair/local.toml --source dr-ptl0:TGT003L6 &&
  cmp in out && echo "the same came back"
result=$?
[ $result -eq 0 ] || tail -n 30 remote.log local.log
kill $local $remote
exit $result
