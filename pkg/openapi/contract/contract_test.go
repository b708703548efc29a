package contract_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"horcrux/pkg/openapi/contract"
	"horcrux/pkg/problem"
)

func load(t testing.TB) *contract.Contract {
	t.Helper()
	c, err := contract.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckBody(t *testing.T) {
	create := load(t).Operation("createVM")
	for name, tc := range map[string]struct {
		body   string
		code   problem.Code
		fields string
	}{
		"only a name":           {`{"name":"web-1"}`, "", ""},
		"all of it":             {`{"name":"t1","cpus":1,"memory_mb":128,"boot":{"kernel":"/k","initrd":null},"disks":[{"pool":"local","size_gb":1}],"start":true}`, "", ""},
		"no JSON":               {`{"name":`, problem.MalformedRequest, "name"},
		"two values":            {`{"name":"a"} {}`, problem.MalformedRequest, ""},
		"not an object":         {`[]`, problem.InvalidValue, "body"},
		"invalid UTF-8":         {"{\"name\":\"\xff\"}", problem.MalformedRequest, "name"},
		"a key twice":           {`{"name":"a","name":"b"}`, problem.MalformedRequest, "name"},
		"a key in another case": {`{"name":"a","CPUS":2}`, problem.MalformedRequest, "CPUS"},
		"an unknown key within": {`{"name":"a","disks":[{"size_gb":1,"size":2}]}`, problem.MalformedRequest, "disks[0].size"},
		"no name":               {`{}`, problem.InvalidValue, "name"},
		"a name out of pattern": {`{"name":"Web_1"}`, problem.InvalidValue, "name"},
		"no CPU":                {`{"name":"a","cpus":0}`, problem.InvalidValue, "cpus"},
		"4096 CPUs":             {`{"name":"a","cpus":4096}`, problem.InvalidValue, "cpus"},
		"a wrong type":          {`{"name":"a","cpus":"2"}`, problem.InvalidValue, "cpus"},
		"two wrong values":      {`{"name":"a","cpus":0,"disks":[{"size_gb":0}]}`, problem.InvalidValue, "cpus disks[0].size_gb"},
		"null where none is":    {`{"name":"a","tags":null}`, problem.InvalidValue, "tags"},
		"cloud-init":            {`{"name":"a","cloud_init":"#cloud-config"}`, problem.InvalidValue, "cloud_init"},
		"too large":             {`{"name":"` + strings.Repeat("a", contract.MaxBody) + `"}`, problem.BodyTooLarge, ""},
	} {
		t.Run(name, func(t *testing.T) { want(t, create.CheckBody("application/json; charset=utf-8", []byte(tc.body)), tc.code, tc.fields) })
	}
	t.Run("no content type", func(t *testing.T) {
		want(t, create.CheckBody("", []byte(`{"name":"a"}`)), problem.UnsupportedMediaType, "")
	})
	t.Run("an optional body", func(t *testing.T) {
		want(t, load(t).Operation("stopVM").CheckBody("", nil), "", "")
	})
	t.Run("a body where none is", func(t *testing.T) {
		want(t, load(t).Operation("startVM").CheckBody("application/json", []byte(`{}`)), problem.MalformedRequest, "")
	})
}

func TestCheckParameters(t *testing.T) {
	c := load(t)
	for name, tc := range map[string]struct {
		operation, query string
		code             problem.Code
		fields           string
	}{
		"none":                {"listVMs", "", "", ""},
		"all kinds":           {"listVMs", "limit=10&state=running&autostart=true&q=w&sort=-name", "", ""},
		"types of events":     {"listEvents", "type=vm.*&type=operation.failed", "", ""},
		"an unknown one":      {"listVMs", "stat=running", problem.MalformedRequest, "query.stat"},
		"one twice":           {"listVMs", "state=running&state=stopped", problem.MalformedRequest, "query.state"},
		"out of range":        {"listVMs", "limit=0", problem.InvalidValue, "query.limit"},
		"not a number":        {"listVMs", "limit=many", problem.InvalidValue, "query.limit"},
		"not of the enum":     {"listVMs", "state=on", problem.InvalidValue, "query.state"},
		"not a truth":         {"deleteVM", "force=yes", problem.InvalidValue, "query.force"},
		"waiting too long":    {"startVM", "wait=301", problem.InvalidValue, "query.wait"},
		"two that are wrong":  {"listVMs", "limit=x&cpus=y", problem.InvalidValue, "query.cpus query.limit"},
		"a pattern of events": {"listEvents", "type=vm", problem.InvalidValue, "query.type[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			query, err := url.ParseQuery(tc.query)
			if err != nil {
				t.Fatal(err)
			}
			want(t, c.Operation(tc.operation).CheckParameters(map[string]string{"id": "x"}, query, nil), tc.code, tc.fields)
		})
	}
	t.Run("an id that is no UUID", func(t *testing.T) {
		want(t, c.Operation("getOperation").CheckParameters(map[string]string{"id": "x"}, nil, nil), problem.InvalidValue, "path.id")
	})
	t.Run("an ETag without quotes", func(t *testing.T) {
		h := http.Header{"If-Match": {"3"}}
		want(t, c.Operation("deleteVM").CheckParameters(map[string]string{"id": "x"}, nil, h), problem.InvalidValue, "header.If-Match")
	})
}

func want(t *testing.T, p *problem.Problem, code problem.Code, fields string) {
	t.Helper()
	if code == "" {
		if p != nil {
			t.Fatalf("refused: %v %v", p, p.Fields)
		}
		return
	}
	if p == nil || p.Code != code {
		t.Fatalf("got %v, want %s", p, code)
	}
	var names []string
	for _, f := range p.Fields {
		names = append(names, f.Field)
	}
	if got := strings.Join(names, " "); got != fields {
		t.Errorf("fields %q, want %q: %v", got, fields, p)
	}
}

func TestRoute(t *testing.T) {
	c := load(t)
	for _, tc := range []struct{ method, path, id, name string }{
		{"GET", "/api/vms", "listVMs", ""},
		{"GET", "/api/vms/unmanaged", "listUnmanagedVMs", ""},
		{"DELETE", "/api/vms/unmanaged", "deleteVM", "unmanaged"},
		{"GET", "/api/storage/pools/tank%2Fvms/volumes", "listVolumes", "tank%2Fvms"},
	} {
		o, values := c.Route(tc.method, tc.path)
		if o == nil || o.ID != tc.id || values["id"] != tc.name {
			t.Errorf("%s %s: %v %v", tc.method, tc.path, o, values)
		}
	}
	if o, _ := c.Route("PUT", "/api/vms"); o != nil {
		t.Errorf("PUT /api/vms is %s", o.ID)
	}
}

func TestCheckAnswer(t *testing.T) {
	c := load(t)
	get := c.Operation("getVersion")
	js := http.Header{"Content-Type": {"application/json"}}
	pj := http.Header{"Content-Type": {"application/problem+json"}}
	for name, tc := range map[string]struct {
		op      *contract.Operation
		status  int
		headers http.Header
		body    string
		says    string
	}{
		"as documented":        {get, 200, js, `{"version":"1","commit":"","go":"go1.26"}`, ""},
		"a field too many":     {get, 200, js, `{"version":"1","commit":"","go":"go1.26","more":1}`, "more"},
		"a field too few":      {get, 200, js, `{"version":"1","commit":""}`, "go"},
		"another media type":   {get, 200, http.Header{"Content-Type": {"text/plain"}}, `x`, "text/plain"},
		"no JSON":              {get, 200, js, `{`, "EOF"},
		"a problem":            {get, 401, pj, `{"type":"x","title":"Not authenticated","status":401,"code":"unauthenticated","detail":"d"}`, ""},
		"another status":       {get, 403, pj, `{"type":"x","title":"Not authenticated","status":401,"code":"unauthenticated","detail":"d"}`, "403"},
		"a code not listed":    {get, 404, pj, `{"type":"x","title":"Not found","status":404,"code":"not_found","detail":"d"}`, "x-problems"},
		"no Location":          {c.Operation("startVM"), 202, js, `{}`, "Location"},
		"a planned operation":  {c.Operation("rebootVM"), 501, pj, `{"type":"x","title":"Not implemented","status":501,"code":"not_implemented","detail":"d"}`, ""},
		"a planned one's body": {c.Operation("rebootVM"), 200, js, `{}`, "not documented"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.op.CheckAnswer(tc.status, tc.headers, []byte(tc.body))
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want it to say %q", err, tc.says)
			}
		})
	}
}

func FuzzCheckBody(f *testing.F) {
	create := load(f).Operation("createVM")
	f.Add([]byte(`{"name":"a","disks":[{"size_gb":1}]}`))
	f.Add([]byte(`{"name":"a","name":"a"}`))
	f.Add([]byte("\xff{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p := create.CheckBody("application/json", data); p != nil && (p.Code.Status() < 400 || p.Code.Status() > 499) {
			t.Errorf("%q: %v", data, p)
		}
	})
}

func BenchmarkCheckBody(b *testing.B) {
	create := load(b).Operation("createVM")
	body := []byte(`{"name":"t1","cpus":1,"memory_mb":128,"boot":{"kernel":"/k"},"disks":[{"size_gb":1}],"start":true}`)
	for b.Loop() {
		if p := create.CheckBody("application/json", body); p != nil {
			b.Fatal(p)
		}
	}
}
