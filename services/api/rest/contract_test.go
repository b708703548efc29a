package rest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// TestRoutesAreTheDocuments: whatever the server answers is documented, and whatever is documented is answered.
func TestRoutesAreTheDocuments(t *testing.T) {
	w := newWorld(t)
	served := map[string]bool{}
	for _, r := range w.server.echo.Routes() {
		served[r.Method+" "+r.Path] = true
		if w.server.contract.routes[r.Method+" "+r.Path] == nil {
			t.Errorf("%s %s is served and not documented", r.Method, r.Path)
		}
	}
	for route := range w.server.contract.routes {
		if !served[route] {
			t.Errorf("%s is documented and not served", route)
		}
	}
}

func TestEveryRouteNamesItsPrivilege(t *testing.T) {
	w := newWorld(t)
	for name, r := range w.server.contract.routes {
		if r.privilege == "" || r.public != (r.privilege == "none") {
			t.Errorf("%s: privilege %q, public %t", name, r.privilege, r.public)
		}
		if r.public && !slices.Contains([]string{"getHealth", "getReadiness"}, r.id) {
			t.Errorf("%s is open to everybody", name)
		}
	}
}

// TestNobodyAndGuest: no route but two answers without authentication, and none to somebody without the privilege.
func TestNobodyAndGuest(t *testing.T) {
	w := newWorld(t)
	for _, r := range w.server.contract.routes {
		path := braces.ReplaceAllString(strings.NewReplacer(":id", "{id}", ":name", "{name}", ":disk", "{x}", ":nic", "{x}").Replace(r.path), "x")
		if r.public {
			w.call(r.method, path, "", header{"Authorization": ""}).is(http.StatusOK)
			continue
		}
		w.call(r.method, path, "", header{"Authorization": ""}).problem(problem.Unauthenticated)
		p := w.call(r.method, path, "", header{"Authorization": "Bearer guest"}).problem(problem.Forbidden)
		if !strings.Contains(p.Detail, r.privilege) {
			t.Errorf("%s does not name %s", p.Detail, r.privilege)
		}
	}
	w.call("GET", "/api/nothing", "", header{"Authorization": ""}).problem(problem.Unauthenticated)
}

func TestPlannedRoutes(t *testing.T) {
	w := newWorld(t)
	n := 0
	for _, r := range w.server.contract.routes {
		if r.planned {
			n++
			w.call(r.method, strings.NewReplacer(":id", "x", ":name", "x", ":disk", "x", ":nic", "x").Replace(r.path), "").problem(problem.NotImplemented)
		}
	}
	if n == 0 {
		t.Error("no planned routes were found")
	}
	w.post("/api/vms/x/clone", "").problem(problem.NotImplemented)
}

// TestFieldsAreTheDocuments: a type that Go writes itself has exactly the fields that the document gives it.
func TestFieldsAreTheDocuments(t *testing.T) {
	w := newWorld(t)
	for name, v := range map[string]any{
		"VM": openapi.VM{}, "VMDisk": openapi.VMDisk{}, "VMNIC": openapi.VMNIC{}, "VMBoot": openapi.VMBoot{}, "Pool": openapi.Pool{},
		"Volume": openapi.Volume{}, "Operation": openapi.Operation{}, "OperationStep": openapi.OperationStep{},
		"OperationError": openapi.OperationError{}, "Event": openapi.Event{}, "EventMeta": openapi.EventMeta{}, "ProblemField": openapi.ProblemField{},
	} {
		schema := w.doc.Components.Schemas[name].Value
		fields := jsonFields(reflect.TypeOf(v))
		for _, f := range fields {
			if schema.Properties[f] == nil {
				t.Errorf("%s: the field %s is in code and not in the document", name, f)
			}
		}
		for f := range schema.Properties {
			if !slices.Contains(fields, f) {
				t.Errorf("%s: the field %s is in the document and not in code", name, f)
			}
		}
	}
}

func jsonFields(t reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag != "" && tag != "-" && f.IsExported() {
			names = append(names, tag)
		}
	}
	return names
}

func TestBadInput(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(w.images, "link")); err != nil {
		t.Fatal(err)
	}
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	for _, tt := range []struct {
		name, body string
		code       problem.Code
		fields     []string
	}{
		{"UnknownField", `{"name":"a","colour":"red"}`, problem.MalformedRequest, []string{"colour"}},
		{"UnknownFieldInside", `{"name":"a","disks":[{"size_gb":1,"size":1}]}`, problem.MalformedRequest, []string{"disks[0].size"}},
		{"WrongCase", `{"Name":"a"}`, problem.MalformedRequest, []string{"Name"}},
		{"DuplicateKey", `{"name":"a","name":"b"}`, problem.MalformedRequest, []string{"name"}},
		{"InvalidUTF8", "{\"name\":\"a\xff\"}", problem.MalformedRequest, []string{"name"}},
		{"Broken", `{"name":`, problem.MalformedRequest, []string{"name"}},
		{"Trailing", `{"name":"a"}{}`, problem.MalformedRequest, nil},
		{"NotAnObject", `[]`, problem.InvalidValue, []string{"body"}},
		{"WrongType", `{"name":"a","cpus":"two"}`, problem.InvalidValue, []string{"cpus"}},
		{"NoName", `{"cpus":1}`, problem.InvalidValue, []string{"name"}},
		{"NameWithCapitals", `{"name":"Web"}`, problem.InvalidValue, []string{"name"}},
		{"NameTooLong", `{"name":"` + strings.Repeat("a", 64) + `"}`, problem.InvalidValue, []string{"name"}},
		{"NameWithDashAtTheEnd", `{"name":"a-"}`, problem.InvalidValue, []string{"name"}},
		{"NameIsUUID", `{"name":"0190e0a2-0000-7000-8000-000000000000"}`, problem.InvalidValue, []string{"name"}},
		{"NameIsUUIDWithoutDashes", `{"name":"0190e0a2000070008000000000000000"}`, problem.InvalidValue, []string{"name"}},
		{"NameIsAPath", `{"name":"unmanaged"}`, problem.InvalidValue, []string{"name"}},
		{"NULInText", `{"name":"a","description":"\u0000"}`, problem.InvalidValue, []string{"description"}},
		{"NoCPUs", `{"name":"a","cpus":0}`, problem.InvalidValue, []string{"cpus"}},
		{"TooManyCPUs", `{"name":"a","cpus":4096}`, problem.InvalidValue, []string{"cpus"}},
		{"HalfACPU", `{"name":"a","cpus":0.5}`, problem.InvalidValue, []string{"cpus"}},
		{"HugeNumber", `{"name":"a","memory_mb":1e999999999}`, problem.InvalidValue, []string{"memory_mb"}},
		{"DiskOfNothing", `{"name":"a","disks":[{"size_gb":0}]}`, problem.InvalidValue, []string{"disks[0].size_gb"}},
		{"TwoAtOnce", `{"name":"a","cpus":0,"memory_mb":1}`, problem.InvalidValue, []string{"cpus", "memory_mb"}},
		{"Null", `{"name":"a","cpus":null}`, problem.InvalidValue, []string{"cpus"}},
		{"RelativePath", `{"name":"a","boot":{"kernel":"vmlinuz"}}`, problem.InvalidValue, []string{"boot.kernel"}},
		{"Traversal", `{"name":"a","boot":{"kernel":` + quote(w.images+"/../../etc/shadow") + `}}`, problem.InvalidValue, []string{"boot.kernel"}},
		{"Outside", `{"name":"a","boot":{"initrd":"/etc/shadow"}}`, problem.InvalidValue, []string{"boot.initrd"}},
		{"LinkToTheOutside", `{"name":"a","boot":{"iso":` + quote(w.images+"/link") + `}}`, problem.InvalidValue, []string{"boot.iso"}},
		{"TheDirItself", `{"name":"a","boot":{"iso":` + quote(w.images) + `}}`, problem.InvalidValue, []string{"boot.iso"}},
		{"Beside", `{"name":"a","disks":[{"size_gb":1,"image":` + quote(w.images+"-not/x") + `}]}`, problem.InvalidValue, []string{"disks[0].image"}},
		{"Machine", `{"name":"a","machine":"toaster"}`, problem.InvalidValue, []string{"machine"}},
		{"CPUModel", `{"name":"a","cpu_model":"a b"}`, problem.InvalidValue, []string{"cpu_model"}},
		{"InitrdWithoutKernel", `{"name":"a","boot":{"initrd":` + quote(w.images+"/initrd") + `}}`, problem.InvalidValue, []string{"boot.initrd"}},
		{"CommandLineWithoutKernel", `{"name":"a","boot":{"cmdline":"quiet","kernel":null}}`, problem.InvalidValue, []string{"boot.cmdline"}},
		{"SameBootOrder", `{"name":"a","disks":[{"size_gb":1,"boot_order":1},{"size_gb":1},{"size_gb":1},{"size_gb":1,"boot_order":1}]}`, problem.InvalidValue, []string{"disks[3].boot_order"}},
		{"SameMAC", `{"name":"a","networks":[{"mac":"02:00:00:00:00:01"},{},{},{"mac":"02:00:00:00:00:01"}]}`, problem.InvalidValue, []string{"networks[3].mac"}},
		{"MulticastMAC", `{"name":"a","networks":[{"mac":"03:00:00:00:00:01"}]}`, problem.InvalidValue, []string{"networks[0].mac"}},
		{"NoSuchNode", `{"name":"a","node":"elsewhere"}`, problem.InvalidValue, []string{"node"}},
		{"TooLarge", `{"name":"a","description":"` + strings.Repeat("x", 10<<20) + `"}`, problem.BodyTooLarge, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			w.post("/api/vms", tt.body).problem(tt.code, tt.fields...)
		})
	}
	w.t = t
	for _, tt := range []struct {
		name, method, path, body string
		headers                  header
		code                     problem.Code
		fields                   []string
	}{
		{"Empty", "POST", "/api/vms", "", nil, problem.MalformedRequest, nil},
		{"NotJSON", "POST", "/api/vms", `{"name":"a"}`, header{"Content-Type": "text/plain"}, problem.UnsupportedMediaType, nil},
		{"BodyWhereNoneBelongs", "POST", "/api/vms/x/start", `{}`, nil, problem.MalformedRequest, nil},
		{"NoPath", "GET", "/api/nothing", "", nil, problem.NotFound, nil},
		{"NoMethod", "PUT", "/api/vms", "", nil, problem.MethodNotAllowed, nil},
		{"UnknownParameter", "DELETE", "/api/vms/x?forse=true", "", nil, problem.MalformedRequest, []string{"query.forse"}},
		{"NotABoolean", "DELETE", "/api/vms/x?force=yes", "", nil, problem.InvalidValue, []string{"query.force"}},
		{"WaitTooLong", "POST", "/api/vms/x/start?wait=301", "", nil, problem.InvalidValue, []string{"query.wait"}},
		{"KeyTooLong", "POST", "/api/vms/x/start", "", header{"Idempotency-Key": strings.Repeat("k", 256)}, problem.InvalidValue, []string{"header.Idempotency-Key"}},
		{"NothingToChange", "PATCH", "/api/vms/x", "{}", nil, problem.InvalidValue, []string{"body"}},
		{"OperationIDIsNone", "GET", "/api/operations/x", "", nil, problem.InvalidValue, []string{"path.id"}},
		{"NoSuchOperation", "GET", "/api/operations/0190e0a2-0000-7000-8000-000000000000?wait=300", "", nil, problem.NotFound, nil},
		{"NameWithNUL", "GET", "/api/vms/a%00b", "", nil, problem.MalformedRequest, []string{"path.id"}},
		{"NameNotUTF8", "GET", "/api/vms/a%ff", "", nil, problem.MalformedRequest, []string{"path.id"}},
		{"UnknownState", "GET", "/api/vms?state=happy", "", nil, problem.InvalidValue, []string{"query.state"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			w.call(tt.method, tt.path, tt.body, tt.headers).problem(tt.code, tt.fields...)
		})
	}
	w.t = t
	if n := w.service.commands(""); n != 0 {
		t.Errorf("%d commands were sent", n)
	}
	if end, err := w.store.End(t.Context()); err != nil || !end.IsZero() {
		t.Errorf("something was recorded: %v, %v", end, err)
	}
}

// TestBoundsAreSaidPlainly: a complaint names the bound as a person would type it.
func TestBoundsAreSaidPlainly(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{"name":"a","memory_mb":99999999}`:                              "must be at most 16777216",
		`{"name":"a","memory_mb":15}`:                                    "must be at least 16",
		`{"name":"a","description":"` + strings.Repeat("x", 4097) + `"}`: "must have at most 4096 characters",
		`{"name":"a","disks":[{"size_gb":1,"pool":""}]}`:                 "must not be empty",
		`{"name":"a","networks":[{}` + strings.Repeat(",{}", 16) + `]}`:  "must have at most 16 items",
		`{"name":"a","firmware":"coreboot"}`:                             "value must be one of 'bios', 'uefi'",
	} {
		p := w.post("/api/vms", body).is(422)
		if f := into[openapi.Problem](p).Fields; len(f) != 1 || f[0].Detail != want {
			t.Errorf("%.40s: %+v, want %s", body, f, want)
		}
	}
	if f := into[openapi.Problem](w.call("PATCH", "/api/vms/a", "{}").is(422)).Fields; f[0].Detail != "must not be empty" {
		t.Errorf("%+v", f)
	}
}
