# Makes the software bill of materials of lines that scripts/build-static/documents.sh writes, in CycloneDX 1.5:
#   sum|NAME|VERSION|SHA-256             what crates.io says of each crate
#   program|NAME|SHA-256
#   rust|PROGRAM|VERSION                 the standard library that each program was built with
#   crate|NAME|VERSION|LICENSE|PROGRAM|PURL
#   edge|FROM|TO                         who needs whom
#   file|PATH|SHA-256|VERSION|LICENSE|PURL
# Variables: version, arch, commit (may be empty), time.

function quoted(text) { return "\"" text "\"" }

function field(name, value) { return value == "" ? "" : "," quoted(name) ":" quoted(value) }

function property(name, value) { return "{\"name\":\"agent-net:" name "\",\"value\":" quoted(value) "}" }

function joined(list, one) { return list == "" ? one : list "," one }

# Empty fields are left out.
function component(type, ref, name, number, text, license, sum, purl, properties) {
    return "{\"type\":" quoted(type) field("bom-ref", ref) field("name", name) field("version", number) \
        field("description", text) \
        (license == "" ? "" : ",\"licenses\":[{\"expression\":" quoted(license) "}]") \
        (sum == "" ? "" : ",\"hashes\":[{\"alg\":\"SHA-256\",\"content\":" quoted(sum) "}]") \
        field("purl", purl) (properties == "" ? "" : ",\"properties\":[" properties "]") "}"
}

function add(one) { components[++count] = one }

function depend(from, to) {
    if ((from, to) in pairs) return
    pairs[from, to] = 1
    if (!(from in needs)) from_at[++froms] = from
    needs[from] = joined(needs[from], quoted(to))
}

BEGIN {
    FS = "|"
    image = "agent-net@" version
}

$1 == "sum" { sums[$2, $3] = $4 }

$1 == "program" {
    add(component("application", "/" $2, $2, version, "", "MIT", $3, "", ""))
    depend(image, "/" $2)
}

$1 == "rust" {
    ref = "pkg:generic/rust-std@" $3
    if (!(ref in known)) add(component("library", ref, "std", $3, "Rust's standard library", "MIT OR Apache-2.0", "", ref, ""))
    known[ref] = 1
    depend("/" $2, ref)
}

$1 == "crate" {
    ref = $6
    if (!(ref in programs)) {
        crate_ref[++crates] = ref
        crate_line[crates] = $0
    }
    programs[ref] = joined(programs[ref], property("program", $5))
}

$1 == "edge" { depend($2, $3) }

$1 == "file" {
    file[++files] = component("file", $2, $2, $4, "", $5, $3, $6, "")
    depend("/agent-net-nvml", $2)
}

END {
    add(component("library", "musl", "musl", "", "The C library in agent-net, as the Rust that built it brings it", "MIT", "", "", ""))
    depend("/agent-net", "musl")
    for (at = 1; at <= crates; at++) {
        split(crate_line[at], part, "|")
        ref = crate_ref[at]
        add(component("library", ref, part[2], part[3], "", part[4], sums[part[2], part[3]], ref, programs[ref]))
    }
    for (at = 1; at <= files; at++) add(file[at])

    properties = property("arch", arch)
    if (commit != "") properties = joined(properties, property("commit", commit))
    print "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.5\",\"version\":1,"
    print "\"metadata\":{\"timestamp\":" quoted(time) ",\"lifecycles\":[{\"phase\":\"build\"}],"
    print "\"component\":" component("container", image, "agent-net", version, "", "", "", "", properties) "},"
    print "\"components\":["
    for (at = 1; at <= count; at++) print components[at] (at < count ? "," : "")
    print "],\n\"dependencies\":["
    for (at = 1; at <= froms; at++)
        print "{\"ref\":" quoted(from_at[at]) ",\"dependsOn\":[" needs[from_at[at]] "]}" (at < froms ? "," : "")
    print "]}"
}
