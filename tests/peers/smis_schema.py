"""Compares the schema that is served with the one that the DMTF publishes.

    smis_schema.py SOURCES     SOURCES: pywbem-1.7.2 unpacked, which holds CIM 2.49.0 (Final)
"""

import sys
from pathlib import Path

import pywbem
import pywbem_mock

HERE = Path(__file__).resolve().parent


def served() -> dict:
    """Classes by name: superclass, flags and features as `schemas/cim` has them."""
    found, current, feature = {}, None, None
    for path in sorted((HERE.parents[1] / "schemas" / "cim").glob("*.cim")):
        for line in path.read_text(encoding="utf-8").splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "class":
                words = rest.split()
                above = words[2] if words[1:2] == [":"] else None
                current = found.setdefault(words[0], {"above": above, "features": {}})
            elif word == "version":
                current["version"] = rest
            elif word in ("property", "method"):
                name, kind, *flags = rest.split()
                feature = current["features"][name] = {
                    "kind": kind, "flags": flags, "values": [], "parameters": {}}
                target = feature
            elif word == "parameter":
                name, kind, *flags = rest.split()
                target = feature["parameters"][name] = {
                    "kind": kind, "flags": flags, "values": []}
            elif word == "=":
                value, _, text = rest.partition("|")
                target["values"].append((value.strip(), text.strip()))
    return found


def published(sources: Path, names: list) -> dict:
    """The same classes out of the published files."""
    folder = sources / "tests" / "schema" / "mofFinal2.49.0"
    connection = pywbem_mock.FakedWBEMConnection(default_namespace="root/cimv2")
    pragma = folder / "cim_schema_2.49.0.mof"
    connection.compile_schema_classes(names, str(pragma), verbose=False)
    classes = connection.EnumerateClasses(DeepInheritance=True, LocalOnly=False,
                                          IncludeQualifiers=True)
    return {item.classname: item for item in classes}


def kind(feature) -> str:
    """The type as `schemas/cim` writes it."""
    base = f"ref:{feature.reference_class}" if feature.type == "reference" else feature.type
    return base + ("[]" if feature.is_array else "")


def value(feature, name: str):
    """The value of a qualifier, or nothing."""
    found = feature.qualifiers.get(name)
    return found.value if found is not None else None


def values(feature) -> list:
    """The value map as pairs."""
    numbers, words = value(feature, "ValueMap"), value(feature, "Values")
    if numbers is None:
        return [("", " ".join(word.split())) for word in words or []]
    words = words or [""] * len(numbers)
    return list(zip(numbers, (" ".join(word.split()) for word in words)))


def differences(sources: Path) -> list:
    """Everything that is not as published."""
    ours = served()
    names = [name for name in ours if name.startswith("CIM_")]
    theirs, wrong = published(sources, names), []
    for name in names:
        rule, own = theirs[name], ours[name]
        if rule.superclass != own["above"]:
            wrong.append(f"{name}: superclass {own['above']}, not {rule.superclass}")
        if value(rule, "Version") != own.get("version"):
            wrong.append(f"{name}: version {own.get('version')}")
        wrong += features(name, rule, resolved(ours, name))
    return wrong


def resolved(ours: dict, name: str) -> dict:
    """All features of a class of ours, inherited ones too."""
    line = []
    while name:
        line.append(ours[name])
        name = ours[name]["above"]
    found = {}
    for item in reversed(line):
        found.update(item["features"])
    return found


def features(name: str, rule, own: dict) -> list:
    """What differs among the features of one class."""
    wrong = []
    declared = {**rule.properties, **rule.methods}
    for missing in set(declared) ^ set(own):
        wrong.append(f"{name}.{missing}: only one side has it")
    for feature in set(declared) & set(own):
        there, here, at = declared[feature], own[feature], f"{name}.{feature}"
        is_method = isinstance(there, pywbem.CIMMethod)
        expected = there.return_type if is_method else kind(there)
        if expected != here["kind"]:
            wrong.append(f"{at}: {here['kind']}, not {expected}")
        if bool(value(there, "Key")) != ("key" in here["flags"]):
            wrong.append(f"{at}: key")
        ours = [(a, " ".join(b.split())) for a, b in here["values"]]
        if values(there) != ours:
            wrong.append(f"{at}: values {ours[:3]}..., not {values(there)[:3]}...")
        if is_method:
            for parameter in set(there.parameters) ^ set(here["parameters"]):
                wrong.append(f"{at}: parameter {parameter} is only on one side")
            for parameter in set(there.parameters) & set(here["parameters"]):
                one, other = there.parameters[parameter], here["parameters"][parameter]
                if kind(one) != other["kind"]:
                    wrong.append(f"{at}.{parameter}: {other['kind']}, not {kind(one)}")
                if bool(value(one, "Out")) != ("out" in other["flags"]):
                    wrong.append(f"{at}.{parameter}: out")
    return wrong


def main() -> int:
    """Says what differs; nothing should."""
    wrong = differences(Path(sys.argv[1]))
    for line in wrong[:50]:
        print(line)
    print(f"{len(wrong)} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
