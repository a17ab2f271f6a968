#!/bin/sh
# Runs in the guest, whose kernel has scsi_debug with tapes: the list of SCSI vectors, and every row of the
# sense table injected. Exits with 0 if all came to what they should.
node=$(lsscsi -g | awk '/scsi_debug/ { print $NF; exit }')
place=$(lsscsi | awk '/scsi_debug/ { gsub(/[][]/, "", $1); print $1; exit }')
[ -n "$node" ] || { echo "scsi_debug has made no tape"; exit 1; }
vectors scsi_debug "$node"
result=$?
mount -t debugfs debugfs /sys/kernel/debug
vectors --inject "/sys/kernel/debug/scsi_debug/$place/error" "$node" || result=1
exit $result
