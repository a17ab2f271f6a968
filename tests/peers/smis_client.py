"""What pywbem sees of the server, checked against the DTD and the schema; copies and indications.

Run by smis.py in an environment that has pywbem and lxml; the last line counts.
"""

import json
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import pywbem  # noqa: E402
from lxml import etree  # noqa: E402
from ports import free_port  # noqa: E402
from report import Report, want  # noqa: E402

ADDRESS, SECURE, USER, PASSWORD, SOURCES, CONFIG, PROGRAM, WORK = sys.argv[1:9]
ROOTS = ["CIM_ManagedElement", "CIM_Dependency", "CIM_Component", "CIM_ElementConformsToProfile",
         "CIM_ElementCapabilities", "CIM_OwningJobElement", "CIM_AffectedJobElement",
         "CIM_HostedDependency", "CIM_ElementCapacity", "CIM_Synchronized", "CIM_MediaPresent"]


def twinreel(*arguments: str) -> str:
    """What the command line prints."""
    done = subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, timeout=300)
    want(done.returncode == 0, f"twinreel {arguments}: {done.stderr[-800:]}")
    return done.stdout


class Valid(pywbem.BaseOperationRecorder):
    """Checks every reply against the DTD while it goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.dtd = etree.DTD(str(Path(SOURCES) / "tests/dtd/DSP0203_2.4.0.dtd"))
        self.replies, self.bytes, self.wrong = 0, 0, []

    def stage_http_response2(self, payload) -> None:
        super().stage_http_response2(payload)
        if payload is None:  # the recorder is made ready for the next one
            return
        data = payload if isinstance(payload, bytes) else payload.encode()
        tree = etree.parse(BytesIO(data))
        self.replies, self.bytes = self.replies + 1, self.bytes + len(data)
        if not self.dtd.validate(tree):
            self.wrong.append(str(self.dtd.error_log.last_error))

    def record(self, pywbem_args, pywbem_result, http_request, http_response) -> None:
        """Everything was done when the reply was staged."""


def connect(valid: "Valid | None", pull=None, url: str = f"http://{ADDRESS}",
            **options) -> pywbem.WBEMConnection:
    """A connection; with a recorder every reply is checked."""
    connection = pywbem.WBEMConnection(url, (USER, PASSWORD), default_namespace="root/twinreel",
                                       use_pull_operations=pull, **options)
    if valid:
        connection.add_operation_recorder(valid)
    return connection


class Model:
    """Everything that the server shows."""

    def __init__(self, connection: pywbem.WBEMConnection) -> None:
        self.connection = connection
        self.classes = {}
        for item in connection.EnumerateClasses(DeepInheritance=True, LocalOnly=False,
                                                IncludeQualifiers=True):
            self.classes[item.classname.lower()] = item

    def instances(self) -> list:
        """The instances of both namespaces."""
        found = {}
        for space in ("interop", "root/twinreel"):
            for root in [c for c in self.classes.values() if not c.superclass]:
                if "Indication" in root.qualifiers:
                    continue
                for instance in self.connection.IterEnumerateInstances(
                        root.classname, namespace=space, DeepInheritance=True):
                    found[str(instance.path)] = instance
        return list(found.values())

    def check(self, instance: pywbem.CIMInstance) -> None:
        """Types, keys, required properties and value maps."""
        declared = self.classes[instance.classname.lower()]
        name = instance.path.to_wbem_uri()
        for prop in instance.properties.values():
            want(prop.name in declared.properties, f"{name}: {prop.name} is not declared")
            rule = declared.properties[prop.name]
            want(rule.type == prop.type and bool(rule.is_array) == bool(prop.is_array),
                 f"{name}: {prop.name} is a {prop.type}")
            if prop.value is None:
                continue
            values = prop.value if prop.is_array else [prop.value]
            allowed = rule.qualifiers.get("ValueMap")
            if allowed is not None and not any(".." in item for item in allowed.value):
                for value in values:
                    want(str(value) in allowed.value, f"{name}: {prop.name} = {value}")
        for rule in declared.properties.values():
            needed = "Key" in rule.qualifiers or "Required" in rule.qualifiers
            if needed:
                want(rule.name in instance.properties and instance[rule.name] is not None,
                     f"{name}: {rule.name} is missing")


def everything(report: Report) -> None:
    """Every class and every instance by both ways of enumerating, and where associations lead."""
    valid = Valid()
    for pull in (False, True):
        connection = connect(valid, pull)
        with report.check(f"pywbem: every instance fits its class, use_pull_operations={pull}"):
            model = Model(connection)
            instances = model.instances()
            want(len(instances) > 100, f"{len(instances)} instances")
            for instance in instances:
                model.check(instance)
            seen = {instance.classname for instance in instances}
            print(f"  {len(model.classes)} classes, {len(instances)} instances of {len(seen)}",
                  flush=True)
        with report.check(f"pywbem: associations are closed, use_pull_operations={pull}"):
            closed(connection, model, instances)
    with report.check("pywbem: every read operation, on a tape and on classes"):
        reads(connect(valid))
    with report.check("pywbem: qualifiers, names and class associations"):
        connection = connect(valid)
        want(len(connection.EnumerateQualifiers()) > 20, "few qualifiers")
        want(connection.GetQualifier("Key").name == "Key", "no qualifier Key")
        want("CIM_TapeDrive" in connection.EnumerateClassNames(DeepInheritance=True), "no names")
        want(connection.AssociatorNames("CIM_PhysicalTape"), "no class associations")
        want(connection.References("CIM_PhysicalTape"), "no class references")
    with report.check("pywbem: every reply is valid against the DTD of DSP0203 2.4"):
        want(not valid.wrong, f"{len(valid.wrong)} of {valid.replies}: {valid.wrong[:3]}")
        print(f"  {valid.replies} replies, {valid.bytes} bytes", flush=True)


def reads(c: pywbem.WBEMConnection) -> None:
    """Each operation that reads, once with an answer and once with an error."""
    tape = c.EnumerateInstanceNames("CIM_PhysicalTape")[0]
    name, job = "CIM_PhysicalTape", "CIM_Job"
    names = c.EnumerateClassNames(DeepInheritance=True)
    rows = [
        (c.GetClass, (name,)), (c.EnumerateClasses, ()), (c.EnumerateClassNames, ()),
        (c.GetQualifier, ("Key",)), (c.EnumerateQualifiers, ()),
        (c.GetInstance, (tape,)), (c.EnumerateInstances, (name,)),
        (c.EnumerateInstanceNames, (name,)), (c.Associators, (tape,)),
        (c.AssociatorNames, (tape,)), (c.References, (tape,)), (c.ReferenceNames, (tape,)),
        (c.Associators, (name,)), (c.AssociatorNames, (name,)), (c.References, (name,)),
        (c.ReferenceNames, (name,)), (c.EnumerateInstances, (job,)),
    ]
    for operation, arguments in rows:
        operation(*arguments)
    opens = [
        (c.OpenEnumerateInstances, name, c.PullInstancesWithPath),
        (c.OpenEnumerateInstancePaths, name, c.PullInstancePaths),
        (c.OpenAssociatorInstances, tape, c.PullInstancesWithPath),
        (c.OpenAssociatorInstancePaths, tape, c.PullInstancePaths),
        (c.OpenReferenceInstances, tape, c.PullInstancesWithPath),
        (c.OpenReferenceInstancePaths, tape, c.PullInstancePaths),
    ]
    for operation, about, pull in opens:
        found = operation(about, MaxObjectCount=1)
        want(not found.eos, f"{operation.__name__} ended at once")
        pull(found.context, MaxObjectCount=1000)
        c.CloseEnumeration(operation(about, MaxObjectCount=1).context)
    errors = [
        (6, c.GetClass, ("Odd",)), (5, c.EnumerateInstances, ("Odd",)),
        (5, c.EnumerateInstanceNames, ("Odd",)), (6, c.GetQualifier, ("Odd",)),
        (7, c.ExecQuery, ("WQL", "SELECT * FROM CIM_Job")),
        (7, c.OpenQueryInstances, ("WQL", "SELECT * FROM CIM_Job")),
        (21, c.PullInstancePaths, (("99", "root/twinreel"), 1)),
    ]
    for code, operation, arguments in errors:
        try:
            operation(*arguments)
            want(False, f"{operation.__name__}{arguments} was answered")
        except pywbem.CIMError as error:
            want(error.status_code == code, f"{operation.__name__}: {error}")
    for class_name in names:
        c.GetClass(class_name, LocalOnly=False, IncludeQualifiers=True, IncludeClassOrigin=True)


def closed(connection: pywbem.WBEMConnection, model: Model, instances: list) -> None:
    """Whatever an association names is there, and leads back to it."""
    paths = {key(instance.path) for instance in instances}
    walked = set()
    for instance in instances:
        if "Association" not in model.classes[instance.classname.lower()].qualifiers:
            continue
        ends = [p.value for p in instance.properties.values() if p.type == "reference"]
        for end in ends:
            want(key(end) in paths, f"{instance.path} names {end}, which is not there")
        # One of each kind is walked; the rest are made by the same hand.
        if instance.classname in walked:
            continue
        walked.add(instance.classname)
        for end, other in ((ends[0], ends[1]), (ends[1], ends[0])):
            back = connection.ReferenceNames(end, ResultClass=instance.classname)
            want(key(instance.path) in {key(p) for p in back}, f"{end} does not lead back")
            far = connection.Associators(end, AssocClass=instance.classname)
            want(key(other) in {key(i.path) for i in far}, f"{end} does not lead to {other}")


def key(path: pywbem.CIMInstanceName) -> str:
    """A path without its host."""
    path = path.copy()
    path.host = None
    for name, value in path.keybindings.items():
        if isinstance(value, pywbem.CIMInstanceName):
            path.keybindings[name] = key(value)
    return path.to_wbem_uri("canonical")


def server_profile(report: Report) -> None:
    """What WBEMServer finds out."""
    with report.check("pywbem: server, namespaces, profiles, central instances"):
        server = pywbem.WBEMServer(connect(None))
        want(server.interop_ns == "interop", server.interop_ns)
        want(set(server.namespaces) == {"interop", "root/twinreel"}, server.namespaces)
        want(server.brand == "Twinreel" and server.version, f"{server.brand} {server.version}")
        for profile in server.get_selected_profiles("SNIA"):
            central = server.get_central_instances(profile.path, reference_direction="snia")
            want(central, f"{profile['RegisteredName']} has no central instance")
    with report.check("pywbem: the same over https"):
        connection = connect(None, url=f"https://{SECURE}", no_verification=True)
        want(connection.EnumerateInstanceNames("CIM_ComputerSystem"), "no systems")
    with report.check("pywbem: a wrong password is refused"):
        wrong = pywbem.WBEMConnection(f"http://{ADDRESS}", (USER, "wrong"))
        try:
            wrong.EnumerateClassNames()
        except pywbem.AuthError:
            return
        want(False, "it was let in")


class Copies:
    """Copies through the replication service."""

    def __init__(self) -> None:
        self.connection = connect(None)
        services = self.connection.EnumerateInstanceNames("Twinreel_ReplicationService")
        self.service = next(path for path in services if path["SystemName"].endswith(":vtl0"))

    def tape(self, library: str, barcode: str) -> pywbem.CIMInstanceName:
        """The partition of a tape."""
        for path in self.connection.EnumerateInstanceNames("CIM_TapePartition"):
            if path["SystemName"].endswith(f":{library}") and path["DeviceID"] == f"tape:{barcode}":
                return path
        raise AssertionError(f"no tape {library}/{barcode}")

    def create(self, source: str, target: str, setting=None) -> tuple:
        """CreateElementReplica from vtl0 to dr-ptl0."""
        more = {"ReplicationSettingData": setting} if setting else {}
        return self.connection.InvokeMethod(
            "CreateElementReplica", self.service, SyncType=pywbem.Uint16(8),
            Mode=pywbem.Uint16(3), WaitForCopyState=pywbem.Uint16(4),
            SourceElement=self.tape("vtl0", source), TargetElement=self.tape("dr-ptl0", target),
            **more)

    def wait(self, job: pywbem.CIMInstanceName) -> pywbem.CIMInstance:
        """The job when it has ended."""
        deadline = time.monotonic() + 180
        while True:
            found = self.connection.GetInstance(job)
            if found["JobState"] in (7, 8, 9, 10):
                return found
            want(time.monotonic() < deadline, f"not ended: {found.tomof()}")
            time.sleep(0.1)

    def done(self, code: int, out: dict) -> pywbem.CIMInstance:
        """The finished job of a call that began one."""
        want(code == 4096, f"returned {code}")
        job = self.wait(out["Job"])
        want(job["JobState"] == 7, job.tomof())
        want(list(job["OperationalStatus"]) == [17, 2], job["OperationalStatus"])
        want(job["PercentComplete"] == 100, job["PercentComplete"])
        return job


def backup(barcodes: list) -> bytes:
    """The same content on each virtual tape."""
    content = bytes((i * i // 7 + i) % 251 for i in range(3_000_000))
    path = Path(WORK) / "content"
    path.write_bytes(content)
    for barcode in barcodes:
        twinreel("dma", "backup", "--config", CONFIG, "--target", f"vtl0:{barcode}", str(path))
    return content


def restored(place: str) -> bytes:
    """What a backup application reads from a tape."""
    path = Path(WORK) / "restored"
    path.unlink(missing_ok=True)
    twinreel("dma", "restore", "--config", CONFIG, "--source", place, str(path))
    return path.read_bytes()


def copies(report: Report) -> None:
    """Whole tapes, sections, lists, aborts, and the way back."""
    content = backup(["VTA001L8", "VTA002L8", "VTA003L8"])
    copies = Copies()
    with report.check("smis: a copy ends done, and the tape holds the same"):
        code, out = copies.create("VTA001L8", "PTA001L8")
        job = copies.done(code, out)
        affected = copies.connection.AssociatorNames(
            job.path, AssocClass="CIM_AffectedJobElement")
        want(len(affected) == 1, f"{len(affected)} affected elements")
        owner = copies.connection.AssociatorNames(job.path, AssocClass="CIM_OwningJobElement")
        want([key(p) for p in owner] == [key(copies.service)], owner)
        want(not copies.connection.EnumerateInstances("CIM_StorageSynchronized"), "attached")
        want(restored("dr-ptl0:PTA001L8") == content, "the tape holds something else")
    with report.check("smis: the job is a row of job_status"):
        rows = json.loads(twinreel("jobs", "--config", CONFIG, "--json"))
        rows = rows if isinstance(rows, list) else rows.get("jobs", rows)
        ids = [row["id"] for row in rows]
        want(job["InstanceID"].rsplit(":", 1)[1] in ids, ids)
    with report.check("smis: a section by a setting is appended"):
        setting = pywbem.CIMInstance("Twinreel_TapeReplicationSettingData", {
            "InstanceID": "mine", "SourceStartObject": pywbem.Uint64(1),
            "SourceObjectCount": pywbem.Uint64(3), "TargetPosition": pywbem.Uint16(3)})
        part = copies.done(*copies.create("VTA001L8", "PTA001L8", setting))
        want(0 < part["BytesCopied"] < job["BytesCopied"], part["BytesCopied"])
        want(restored("dr-ptl0:PTA001L8") == content, "what was there has changed")
    with report.check("smis: a section by scalar parameters"):
        code, out = copies.connection.InvokeMethod(
            "CopyTapeSection", copies.service, SourceElement=copies.tape("vtl0", "VTA002L8"),
            TargetElement=copies.tape("dr-ptl0", "PTA002L8"),
            SourceStartObject=pywbem.Uint64(0), SourceObjectCount=pywbem.Uint64(2))
        want(copies.done(code, out)["BytesCopied"] > 0, "nothing was copied")
    with report.check("smis: back from the ghost library to a virtual tape"):
        code, out = copies.connection.InvokeMethod(
            "CreateElementReplica", copies.service, SyncType=pywbem.Uint16(8),
            SourceElement=copies.tape("dr-ptl0", "PTA001L8"),
            TargetElement=copies.tape("vtl0", "VTA004L8"))
        copies.done(code, out)
        want(restored("vtl0:VTA004L8") == content, "the tape holds something else")
    refusals(report, copies)
    lists(report, copies)
    by_ndmp(report, copies)


def refusals(report: Report, copies: Copies) -> None:
    """What is answered with a code and does nothing."""
    with report.check("smis: what can not be is refused by its code"):
        source, target = copies.tape("vtl0", "VTA001L8"), copies.tape("dr-ptl0", "PTA001L8")
        call = copies.connection.InvokeMethod
        clone, mirror = pywbem.Uint16(8), pywbem.Uint16(6)
        rows = [
            (1, {"SyncType": mirror, "SourceElement": source, "TargetElement": target}),
            (5, {"SyncType": clone, "SourceElement": source, "TargetElement": source}),
            (5, {"SyncType": clone, "SourceElement": source}),
            (5, {"SyncType": clone, "SourceElement": copies.tape("vtl0", "VTA005L8"),
                 "TargetElement": target}),
        ]
        for expected, inputs in rows:
            code, _ = call("CreateElementReplica", copies.service, **inputs)
            want(code == expected, f"{code} instead of {expected}: {inputs}")
        code, out = call("GetAvailableTargetElements", copies.service, SyncType=clone,
                         SourceElement=source, MaxElementCount=pywbem.Uint32(2))
        want(code == 0 and len(out["Candidates"]) == 2, f"{code} {out}")
    with report.check("smis: the capabilities tell what the service does"):
        told = copies.connection.AssociatorNames(
            copies.service, AssocClass="CIM_ElementCapabilities")[0]
        code, out = call("ConvertSyncTypeToReplicationType", told, SyncType=clone)
        kind = out["SupportedReplicationTypes"]
        want(code == 0, code)
        for method, output in (("GetSupportedFeatures", "Features"),
                               ("GetSupportedOperations", "SupportedOperations"),
                               ("GetSupportedCopyStates", "SupportedCopyStates"),
                               ("GetDefaultReplicationSettingData", "DefaultInstance")):
            code, out = call(method, told, ReplicationType=kind)
            want(code == 0 and out[output] is not None, f"{method}: {code} {out}")
        code, out = call("GetReplicationRelationshipInstances", copies.service)
        want(code == 0, f"{code} {out}")


def lists(report: Report, copies: Copies) -> None:
    """Three at once on two drives; one of them is ended while it waits."""
    with report.check("smis: a list, tapes in use, and a copy that is ended"):
        names = [("VTA001L8", "PTA001L8"), ("VTA002L8", "PTA002L8"), ("VTA003L8", "PTA003L8")]
        code, out = copies.connection.InvokeMethod(
            "CreateListReplica", copies.service, SyncType=pywbem.Uint16(8),
            SourceElements=[copies.tape("vtl0", source) for source, _ in names],
            TargetElements=[copies.tape("dr-ptl0", target) for _, target in names])
        want(code == 4096 and len(out["Synchronizations"]) == 3, f"{code} {out}")
        code, _ = copies.create("VTA004L8", "PTA003L8")
        want(code == 6, f"a tape in use was answered {code}")
        code, _ = copies.connection.InvokeMethod(
            "ModifyReplicaSynchronization", copies.service, Operation=pywbem.Uint16(2),
            Synchronization=out["Synchronizations"][2])
        want(code == 4096, f"abort was answered {code}")
        jobs = [copies.wait(path) for path in
                copies.connection.EnumerateInstanceNames("Twinreel_ConcreteJob")]
        states = {job["Target"]: job["JobState"] for job in jobs if job["Kind"] == "copy"}
        want([states[f"dr-ptl0/{target}"] for _, target in names] == [7, 7, 8], states)
        whole = copies.wait(out["Job"])
        want(whole["JobState"] == 8 and "2 of 3" in whole["JobStatus"], whole.tomof())
        affected = copies.connection.AssociatorNames(
            whole.path, AssocClass="CIM_AffectedJobElement")
        want(len(affected) == 3, affected)
        ended = next(job for job in jobs if job["JobState"] == 8)
        code, _ = copies.connection.InvokeMethod("RequestStateChange", ended.path,
                                                 RequestedState=pywbem.Uint16(4))
        want(code == 4097, f"an ended job was ended again: {code}")


def by_ndmp(report: Report, copies: Copies) -> None:
    """A copy that a backup application runs is a job here."""
    with report.check("smis: a copy by NDMP is a job that belongs to the NDMP server"):
        twinreel("dma", "copy", "--config", CONFIG, "--source", "vtl0:VTA001L8",
                 "--target", "dr-ptl0:PTA004L8")
        jobs = copies.connection.EnumerateInstances("Twinreel_ConcreteJob")
        mine = [job for job in jobs if job["Target"] == "dr-ptl0/PTA004L8"]
        want(len(mine) == 1 and mine[0]["JobState"] == 7, [job.tomof() for job in mine])
        owner = copies.connection.AssociatorNames(mine[0].path, AssocClass="CIM_OwningJobElement")
        want(owner[0].classname == "Twinreel_TapeServer", owner)


class Listener:
    """A listener that notes what comes, and can be away."""

    def __init__(self, port: int) -> None:
        self.port, self.seen, self.lock = port, [], threading.Lock()
        self.listener = None

    def start(self) -> None:
        """Listens."""
        self.listener = pywbem.WBEMListener("127.0.0.1", http_port=self.port)
        self.listener.add_callback(self.note)
        self.listener.start()

    def stop(self) -> None:
        """Is away."""
        self.listener.stop()

    def note(self, indication, _host) -> None:
        """One indication."""
        with self.lock:
            self.seen.append(indication)

    def wait(self, enough, what: str) -> list:
        """What has come, once it is enough."""
        deadline = time.monotonic() + 90
        while True:
            with self.lock:
                seen = list(self.seen)
            if enough(seen):
                return seen
            want(time.monotonic() < deadline, f"{what}: {len(seen)} indications came")
            time.sleep(0.2)


QUERIES = [
    "SELECT * FROM CIM_InstCreation WHERE SourceInstance ISA CIM_ConcreteJob",
    "SELECT * FROM CIM_InstModification WHERE SourceInstance ISA CIM_ConcreteJob AND "
    "ANY SourceInstance.CIM_ConcreteJob::OperationalStatus[*] = 17 AND "
    "ANY SourceInstance.CIM_ConcreteJob::OperationalStatus[*] = 2",
    "SELECT * FROM CIM_InstModification WHERE SourceInstance ISA CIM_ConcreteJob AND "
    "SourceInstance.JobState <> PreviousInstance.JobState",
    "SELECT * FROM CIM_InstCreation WHERE SourceInstance ISA CIM_PhysicalMediaInLocation",
    "SELECT * FROM CIM_InstDeletion WHERE SourceInstance ISA CIM_PhysicalMediaInLocation",
    "SELECT * FROM CIM_InstIndication WHERE SourceInstance ISA CIM_ConcreteJob",
]


def indications(report: Report) -> None:
    """Six subscriptions, delivered in order over an outage of the listener."""
    listener = Listener(free_port())
    manager = pywbem.WBEMSubscriptionManager("peers")
    with report.check("smis: six subscriptions are delivered in order over an outage"):
        server = manager.add_server(pywbem.WBEMServer(connect(None)))
        listener.start()
        destination = manager.add_destination(
            server, f"http://127.0.0.1:{listener.port}", owned=True, destination_id="d")
        for number, query in enumerate(QUERIES):
            found = manager.add_filter(server, "root/twinreel", query, query_language="DMTF:CQL",
                                       owned=True, filter_id=f"f{number}")
            manager.add_subscriptions(server, found.path, destination.path, owned=True)
        copies = Copies()
        time.sleep(2.5)  # the state as it is now is what changes are told against
        copies.done(*copies.create("VTA001L8", "PTA001L8"))
        listener.wait(lambda seen: len(seen) >= 3, "before the outage")
        listener.stop()
        copies.done(*copies.create("VTA002L8", "PTA002L8"))
        time.sleep(2.5)
        listener.start()
        copies.done(*copies.create("VTA003L8", "PTA003L8"))

        def enough(seen: list) -> bool:
            made = [i for i in seen if i.classname == "CIM_InstCreation"
                    and i["SourceInstance"].classname == "Twinreel_ConcreteJob"]
            return len({i["SourceInstance"]["InstanceID"] for i in made}) >= 3
        seen = listener.wait(enough, "after the outage")
        numbers = [i["SequenceNumber"] for i in seen]
        want(numbers == list(range(len(numbers))), f"numbers {numbers}")
        want(len({i["SequenceContext"] for i in seen}) == 1, "several contexts")
        print(f"  {len(seen)} indications", flush=True)
    with report.check("smis: wrong wishes are refused, and all can be taken back"):
        connection = connect(None)
        path = pywbem.CIMInstance("CIM_ListenerDestinationCIMXML", {
            "Name": "x", "Destination": "http://198.51.100.1:5000"})
        try:
            connection.CreateInstance(path, namespace="interop")
            want(False, "it would send anywhere")
        except pywbem.CIMError as error:
            want(error.status_code == 2, str(error))
        manager.remove_all_servers()
        left = connection.EnumerateInstanceNames("CIM_IndicationSubscription", namespace="interop")
        want(not left, left)
    listener.stop()


def main() -> int:
    """All of it."""
    report = Report()
    server_profile(report)
    everything(report)
    copies(report)
    indications(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
