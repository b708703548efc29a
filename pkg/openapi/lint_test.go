package openapi_test

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/pkg/usage"
)

func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.YAML)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// eachOperation visits the operations in the order of their paths.
func eachOperation(doc *openapi3.T, visit func(name string, item *openapi3.PathItem, op *openapi3.Operation)) {
	for _, path := range doc.Paths.InMatchingOrder() {
		item := doc.Paths.Value(path)
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			visit(method+" "+path, item, item.Operations()[method])
		}
	}
}

func text(op *openapi3.Operation, extension string) string {
	s, _ := op.Extensions[extension].(string)
	return s
}

func codes(v any) []string {
	var all []string
	list, _ := v.([]any)
	for _, c := range list {
		all = append(all, fmt.Sprint(c))
	}
	return all
}

func TestDocumentIsValid(t *testing.T) {
	if err := document(t).Validate(t.Context(), openapi3.EnableMultiError()); err != nil {
		t.Error(err)
	}
}

// The rules of our own.
func TestOperations(t *testing.T) {
	doc := document(t)
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		tags[tag.Name] = true
	}
	ids := map[string]string{}
	privilege := regexp.MustCompile(`^[a-z]+(\.[a-z]+)+$`)
	operationID := regexp.MustCompile(`^[a-z]+([A-Z][A-Za-z]*)?$`)
	open := map[string]bool{"/healthz": true, "/readyz": true}
	eachOperation(doc, func(name string, item *openapi3.PathItem, op *openapi3.Operation) {
		method, path, _ := strings.Cut(name, " ")
		if other := ids[op.OperationID]; other != "" || !operationID.MatchString(op.OperationID) {
			t.Errorf("%s: operationId %q, also of %q", name, op.OperationID, other)
		}
		ids[op.OperationID] = name
		if p := text(op, "x-privilege"); open[path] != (p == "none") || p != "none" && !privilege.MatchString(p) {
			t.Errorf("%s: x-privilege %q", name, p)
		}
		if open[path] != (op.Security != nil && len(*op.Security) == 0) {
			t.Errorf("%s: only what needs no authentication has security: []", name)
		}
		if op.Summary == "" || strings.HasSuffix(op.Summary, ".") || len(op.Tags) == 0 {
			t.Errorf("%s: summary %q, tags %v", name, op.Summary, op.Tags)
		}
		for _, tag := range op.Tags {
			if !tags[tag] {
				t.Errorf("%s: tag %s is not declared", name, tag)
			}
		}
		if d := op.Responses.Default(); d == nil || d.Ref != "#/components/responses/Problem" {
			t.Errorf("%s: the default answer is not a problem", name)
		}
		for _, code := range codes(op.Extensions["x-problems"]) {
			if !slices.Contains(problem.Codes(), problem.Code(code)) {
				t.Errorf("%s: x-problems: %s is not in the catalogue", name, code)
			}
		}
		planned, _ := op.Extensions["x-not-implemented"].(bool)
		if planned != slices.Contains(op.Tags, "planned") {
			t.Errorf("%s: the tag planned and x-not-implemented go together", name)
		}
		if planned {
			return
		}
		parameters := parameterNames(item, op)
		if method == "GET" {
			if strings.HasPrefix(text(op, "x-privilege"), "system.") || open[path] {
				return
			}
			if !parameters["min_position"] {
				t.Errorf("%s: no min_position", name)
			}
			return
		}
		if immediate, _ := op.Extensions["x-immediate"].(bool); immediate {
			return
		}
		for _, p := range []string{"wait", "reason", "Idempotency-Key"} {
			if !parameters[p] {
				t.Errorf("%s changes something and has no %s", name, p)
			}
		}
		for status, ref := range map[int]string{200: "OperationWaited", 202: "OperationAccepted"} {
			if r := op.Responses.Status(status); r == nil || r.Ref != "#/components/responses/"+ref {
				t.Errorf("%s: %d does not answer the operation", name, status)
			}
		}
	})
}

func parameterNames(item *openapi3.PathItem, op *openapi3.Operation) map[string]bool {
	names := map[string]bool{}
	for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
		names[p.Value.Name] = true
	}
	return names
}

// Every object has history and can be shown as it was.
func TestEveryObjectHasHistory(t *testing.T) {
	doc := document(t)
	for _, path := range []string{"/api/vms/{id}", "/api/storage/pools/{id}", "/api/storage/pools/{id}/volumes/{name}", "/api/operations/{id}"} {
		if doc.Paths.Value(path+"/history") == nil {
			t.Errorf("%s has no history", path)
		}
		if item := doc.Paths.Value(path); !parameterNames(item, item.Get)["at"] {
			t.Errorf("GET %s has no at", path)
		}
	}
}

func TestSchemasAreClosed(t *testing.T) {
	for name, s := range document(t).Components.Schemas {
		if s.Value.Type.Is("object") && (s.Value.AdditionalProperties.Has == nil || *s.Value.AdditionalProperties.Has) {
			t.Errorf("%s takes fields that are not documented", name)
		}
	}
}

func TestCodesAreTheCatalogue(t *testing.T) {
	var documented []problem.Code
	for _, c := range codes(document(t).Components.Schemas["ProblemCode"].Value.Enum) {
		documented = append(documented, problem.Code(c))
	}
	slices.Sort(documented)
	if !slices.Equal(documented, problem.Codes()) {
		t.Errorf("ProblemCode is %v, the catalogue %v", documented, problem.Codes())
	}
}

// A filter in code is a parameter in the document, and the other way round.
func TestFilters(t *testing.T) {
	doc := document(t)
	for path, r := range map[string]events.Resource{
		"/api/vms": vm.Resource, "/api/storage/pools": pool.Resource, "/api/storage/pools/{id}/volumes": volume.Resource,
	} {
		want := []string{"cursor", "limit", "min_position", "q", "sort"}
		for _, f := range r.Filters {
			if f == "pool" { // the path says it
				f = "id"
			}
			for query, field := range r.FilterNames {
				if field == f {
					f = query
				}
			}
			want = append(want, f)
		}
		slices.Sort(want)
		item := doc.Paths.Value(path)
		if got := slices.Sorted(maps.Keys(parameterNames(item, item.Get))); !slices.Equal(got, want) {
			t.Errorf("%s takes %v, the code %v", path, got, want)
		}
	}
}

// The schemas and the Go types that go over the wire have the same fields, required and nullable alike.
func TestSchemasAreTheViews(t *testing.T) {
	schemas := document(t).Components.Schemas
	for name, v := range map[string]any{
		"VM": vm.View{}, "VMDisk": vm.Disk{}, "VMNIC": vm.NIC{}, "VMBoot": vm.Boot{}, "Pool": pool.View{},
		"Volume": volume.View{}, "Operation": operation.View{}, "OperationStep": operation.Step{},
		"OperationError": problem.Document{}, "ProblemField": problem.Field{}, "Event": events.Event{}, "EventMeta": events.Meta{},
		"VMStats": usage.VM{}, "CPUStats": usage.CPU{}, "MemoryStats": usage.Memory{}, "DiskStats": usage.Disk{}, "NICStats": usage.NIC{},
		"NodeStats": usage.Node{}, "NodeMemoryStats": usage.NodeMemory{}, "NodeDiskStats": usage.NodeDisk{}, "NodeNetworkStats": usage.NodeNetwork{},
		"Stats": usage.All{}, "MissingNode": usage.Missing{}, "StatsHistory": usage.History{}, "StatsSample": usage.Sample{},
	} {
		t.Run(name, func(t *testing.T) { compare(t, schemas[name].Value, reflect.TypeOf(v)) })
	}
}

func compare(t *testing.T, s *openapi3.Schema, goType reflect.Type) {
	fields := wireFields(goType)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := fields[name]
		p, ok := s.Properties[name]
		if !ok {
			t.Errorf("%s is not documented", name)
			continue
		}
		if required := !f.optional; required != slices.Contains(s.Required, name) {
			t.Errorf("%s: required is %v in code", name, required)
		}
		nullable := p.Value.Type.Includes("null") || slices.ContainsFunc(p.Value.AnyOf, func(s *openapi3.SchemaRef) bool { return s.Value.Type.Is("null") })
		if want := f.goType.Kind() == reflect.Pointer; want != nullable {
			t.Errorf("%s: nullable is %v in code", name, want)
		}
		if want := jsonType(f.goType); want != "" && p.Value.Type != nil && !p.Value.Type.Includes(want) {
			t.Errorf("%s: is %v in the document, %s in code", name, p.Value.Type, want)
		}
	}
	for name := range s.Properties {
		if _, ok := fields[name]; !ok {
			t.Errorf("%s is documented and not in code", name)
		}
	}
}

type wireField struct {
	goType   reflect.Type
	optional bool
}

func wireFields(goType reflect.Type) map[string]wireField {
	fields := map[string]wireField{}
	for _, f := range reflect.VisibleFields(goType) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "" || tag == "-" {
			continue
		}
		fields[tag] = wireField{f.Type, strings.Contains(options, "omit")}
	}
	return fields
}

// jsonType is what a Go type becomes, "" where it says so itself.
func jsonType(goType reflect.Type) string {
	if goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	if _, ok := reflect.New(goType).Interface().(interface{ MarshalText() ([]byte, error) }); ok {
		return "string"
	}
	switch goType.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice:
		if goType.Elem().Kind() == reflect.Uint8 { // json.RawMessage
			return ""
		}
		return "array"
	}
	return ""
}
