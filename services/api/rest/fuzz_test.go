package rest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/pkg/trace"
	"horcrux/services/api/strictjson"
)

// fuzzRoutes are the routes of the contract in an order that does not change.
func fuzzRoutes(f *testing.F) []*route {
	f.Helper()
	c, err := loadContract(openapi.YAML)
	if err != nil {
		f.Fatal(err)
	}
	var routes []*route
	for _, name := range slices.Sorted(maps.Keys(c.routes)) {
		routes = append(routes, c.routes[name])
	}
	return routes
}

// refused fails unless an error is a problem that the caller can mend.
func refused(t *testing.T, err error) {
	t.Helper()
	if p := problem.From(err); p == nil || p.Code.Status() >= http.StatusInternalServerError {
		t.Errorf("%v is no problem of the caller's", err)
	}
}

// FuzzBody: a body is refused, or becomes the request that the handler gets, which is written as what it was read as.
func FuzzBody(f *testing.F) {
	into := map[string]func() any{
		"createVM":     func() any { return new(openapi.CreateVMJSONRequestBody) },
		"updateVM":     func() any { return new(openapi.UpdateVMJSONRequestBody) },
		"revertVM":     func() any { return new(openapi.RevertVMJSONRequestBody) },
		"stopVM":       func() any { return new(openapi.StopVMJSONRequestBody) },
		"shutdownVM":   func() any { return new(openapi.ShutdownVMJSONRequestBody) },
		"createVolume": func() any { return new(openapi.CreateVolumeJSONRequestBody) },
	}
	routes := slices.DeleteFunc(fuzzRoutes(f), func(r *route) bool { return r.body == nil })
	for i := range routes {
		for _, body := range []string{
			`{}`, ``, `null`, `{"name":"a","cpus":1e0,"memory_mb":64.0,"disks":[{"pool":"local","size_gb":1}],"networks":[],"start":true}`,
			`{"name":"data","size_gb":10,"format":"raw"}`, `{"to":"AAcB"}`, `{"timeout_s":30}`, `{"description":"x","tags":["a","a"]}`,
			`{"name":"a","name":"b"}`, `{"Name":"a"}`, "{\"name\":\"\xff\"}", `{"cpus":1e999999999}`, `[[[[[[[[]]]]]]]]`,
		} {
			f.Add(uint8(i), []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, body []byte) {
		r := routes[int(i)%len(routes)]
		req := httptest.NewRequest(r.method, "/", strings.NewReader(string(body)))
		req.Header.Set("Content-Type", "application/json")
		data, err := r.readBody(httptest.NewRecorder(), req)
		if err != nil {
			refused(t, err)
			return
		}
		if into[r.id] == nil || len(data) == 0 {
			return
		}
		v, again := into[r.id](), into[r.id]()
		if err := strictjson.Decode(data, v); err != nil {
			refused(t, err)
			return
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s %s: %v", r.id, data, err)
		}
		if err := strictjson.Decode(text, again); err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%s: %s is written as %s and read as another, %v", r.id, data, text, err)
		}
	})
}

// FuzzParams: query, path and headers are refused, or are what the handlers can use.
func FuzzParams(f *testing.F) {
	routes := fuzzRoutes(f)
	for i := range routes {
		f.Add(uint8(i), "wait=10&reason=x", "a", "", `"3"`, "key")
		f.Add(uint8(i), "limit=1&cursor=AAAA&sort=-name&q=a%25", "0190c1a0-0000-7000-8000-000000000001", "AAcB", "*", "")
	}
	f.Add(uint8(0), "limit=9223372036854775808&after=AA&type=vm.*&type=%ff&at=2026-01-01T00:00:00Z&min_position=%00", "a%2", "AQAA", `W/"1"`, "\x00")
	f.Fuzz(func(t *testing.T, i uint8, query, path, lastEventID, ifMatch, key string) {
		r := routes[int(i)%len(routes)]
		values, err := url.ParseQuery(query)
		if err != nil {
			return // malformed, as admit says
		}
		req := &http.Request{Method: r.method, URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{}}
		for name, value := range map[string]string{"Last-Event-ID": lastEventID, "If-Match": ifMatch, "Idempotency-Key": key, "Traceparent": key} {
			if value != "" {
				req.Header.Set(name, value)
			}
		}
		ctx, span := trace.Begin(t.Context(), req.Header.Get("Traceparent"), "fuzz")
		span.End(nil)
		if p := trace.Parent(ctx); len(p) != len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01") {
			t.Errorf("trace %q of %q", p, key)
		}
		if err := r.checkParams(req, values, func(string) string { return path }); err != nil {
			refused(t, err)
			return
		}
		c := &call{route: r, req: req, query: values}
		if w := c.wait(); w < 0 || w > maxWait {
			t.Errorf("waits %s", w)
		}
		c.streams()
		first, err := c.request(nil)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := c.request(nil); err != nil || !reflect.DeepEqual(first, second) {
			t.Errorf("%v is another request the second time: %v, %v", first, second, err)
		}
		if v, err := c.ifVersion(); err != nil {
			refused(t, err)
		} else if v == nil && ifMatch != "" && ifMatch != "*" {
			t.Errorf("If-Match %q is ignored", ifMatch)
		}
		for _, text := range []string{lastEventID, values.Get("after"), values.Get("min_position")} {
			p, err := position("field", text)
			if err != nil {
				refused(t, err)
			} else if p.String() != text {
				t.Errorf("%q is %q", text, p)
			}
		}
	})
}
