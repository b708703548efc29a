package openapitest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheckAnswer(t *testing.T) {
	c := Load(t)
	js, pj := "application/json", "application/problem+json"
	for name, tc := range map[string]struct {
		request, contentType string
		status               int
		body                 string
		says                 string
	}{
		"as documented":      {"GET /api/version", js, 200, `{"version":"1","commit":"","go":"go1.26"}`, ""},
		"a field too many":   {"GET /api/version", js, 200, `{"version":"1","commit":"","go":"go1.26","more":1}`, "more"},
		"a field too few":    {"GET /api/version", js, 200, `{"version":"1","commit":""}`, "go"},
		"another media type": {"GET /api/version", "text/plain", 200, `x`, "text/plain"},
		"no JSON":            {"GET /api/version", js, 200, `{`, "decode"},
		"a problem":          {"GET /api/version", pj, 401, `{"type":"x","title":"Not authenticated","status":401,"code":"unauthenticated","detail":"d"}`, ""},
		"another status":     {"GET /api/version", pj, 403, `{"type":"x","title":"Not authenticated","status":401,"code":"unauthenticated","detail":"d"}`, "not those of"},
		"a code not listed":  {"GET /api/version", pj, 404, `{"type":"x","title":"Not found","status":404,"code":"not_found","detail":"d"}`, "x-problems"},
		"no Location":        {"POST /api/vms/a/start", js, 202, `{}`, "Location"},
		"a planned route":    {"POST /api/vms/a/clone", pj, 501, `{"type":"x","title":"Not implemented","status":501,"code":"not_implemented","detail":"d"}`, ""},
		"its success":        {"POST /api/vms/a/clone", js, 200, `{}`, "application/json"},
		"a route of nobody":  {"GET /api/nothing", js, 200, `{}`, "route"},
		"its refusal":        {"GET /api/nothing", pj, 404, `{}`, ""},
		"an encoded name":    {"GET /api/storage/pools/tank%2Fvms/history", js, 200, `{"items":[],"next":null,"position":""}`, ""},
		"an id of no UUID":   {"GET /api/storage/pools/x/history", js, 200, `{"items":[{"position":"a","version":1,"time":"2026-01-01T00:00:00Z","type":"t","actor":"a","reason":null,"operation":"x","before":{},"after":{}}],"next":null,"position":""}`, "operation"},
		"a time of no day":   {"GET /api/storage/pools/x/history", js, 200, `{"items":[{"position":"a","version":1,"time":"now","type":"t","actor":"a","reason":null,"operation":null,"before":{},"after":{}}],"next":null,"position":""}`, "time"},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(tc.request, " ")
			resp := &http.Response{StatusCode: tc.status, Header: http.Header{"Content-Type": {tc.contentType}}, Body: io.NopCloser(strings.NewReader(tc.body))}
			err := c.CheckAnswer(httptest.NewRequest(method, path, nil), resp)
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want it to say %q", err, tc.says)
			}
			if body, _ := io.ReadAll(resp.Body); err == nil && string(body) != tc.body {
				t.Errorf("the body is %q afterwards", body)
			}
		})
	}
}

func TestCheckRequest(t *testing.T) {
	c := Load(t)
	for name, tc := range map[string]struct{ request, body, says string }{
		"as documented":      {"POST /api/vms?wait=60&reason=why", `{"name":"web-1","networks":[]}`, ""},
		"an unknown field":   {"POST /api/vms", `{"name":"web-1","nics":[]}`, "nics"},
		"0 CPUs":             {"POST /api/vms", `{"name":"web-1","cpus":0}`, "cpus"},
		"4096 CPUs":          {"POST /api/vms", `{"name":"web-1","cpus":4096}`, "cpus"},
		"a name too loud":    {"POST /api/vms", `{"name":"WEB"}`, "name"},
		"an empty change":    {"PATCH /api/vms/a", `{}`, "minProperties"},
		"an unknown query":   {"GET /api/vms?stat=running", "", "stat"},
		"a query off limits": {"GET /api/vms?limit=1001", "", "limit"},
		"an unknown route":   {"PUT /api/vms", `{}`, "method not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(tc.request, " ")
			r := httptest.NewRequest(method, path, strings.NewReader(tc.body))
			if tc.body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			err := c.CheckRequest(r)
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want it to say %q", err, tc.says)
			}
		})
	}
}
