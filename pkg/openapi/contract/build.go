package contract

import (
	"fmt"
	"path"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"horcrux/pkg/problem"
)

// builder resolves the references of operations and compiles their schemas.
type builder struct {
	doc      *document
	compiler *jsonschema.Compiler
}

func (b builder) operation(at, method string, e entry, shared []parameter) (*Operation, error) {
	upper, ok := methodOf(method)
	if !ok || e.ID == "" || e.Privilege == "" {
		return nil, fmt.Errorf("no operationId, no x-privilege, or an unknown method")
	}
	o := &Operation{
		ID: e.ID, Method: upper, Path: at, Privilege: e.Privilege, Feature: e.Feature, NotImplemented: e.NotImplemented,
		Problems: append(append([]problem.Code{}, b.doc.Common...), e.Problems...),
		answers:  map[string]answer{},
	}
	if o.NotImplemented {
		o.Problems = append(o.Problems, problem.NotImplemented, problem.FeatureNotBuilt)
	}
	here := pointer("paths", at, method)
	for i, list := range [][]parameter{shared, e.Parameters} {
		base := here
		if i == 0 {
			base = pointer("paths", at)
		}
		for j, p := range list {
			p, err := b.parameter(p, fmt.Sprintf("%s/parameters/%d", base, j))
			if err != nil {
				return nil, err
			}
			o.params = append(o.params, p)
		}
	}
	if e.Body != nil {
		schema, err := b.compile(here + "/requestBody/content/" + escape("application/json") + "/schema")
		if err != nil {
			return nil, err
		}
		o.body = &body{required: e.Body.Required, schema: schema}
	}
	for status, r := range e.Responses {
		a, err := b.answer(r, here+"/responses/"+status)
		if err != nil {
			return nil, err
		}
		o.answers[status] = a
	}
	return o, nil
}

func (b builder) parameter(p parameter, at string) (parameter, error) {
	if p.Ref != "" {
		name := path.Base(p.Ref)
		target, ok := b.doc.Components.Parameters[name]
		if !ok {
			return p, fmt.Errorf("no parameter %s", name)
		}
		p, at = target, pointer("components", "parameters", name)
	}
	var err error
	p.compiled, err = b.compile(at + "/schema")
	return p, err
}

func (b builder) answer(r response, at string) (answer, error) {
	if r.Ref != "" {
		name := path.Base(r.Ref)
		target, ok := b.doc.Components.Responses[name]
		if !ok {
			return answer{}, fmt.Errorf("no response %s", name)
		}
		r, at = target, pointer("components", "responses", name)
	}
	a := answer{content: map[string]*jsonschema.Schema{}, headers: map[string]answerHeader{}}
	for media := range r.Content {
		schema, err := b.compile(at + "/content/" + escape(media) + "/schema")
		if err != nil {
			return answer{}, err
		}
		a.content[media] = schema
	}
	for name, h := range r.Headers {
		place := at + "/headers/" + escape(name)
		if h.Ref != "" {
			target := path.Base(h.Ref)
			h, place = b.doc.Components.Headers[target], pointer("components", "headers", target)
		}
		schema, err := b.compile(place + "/schema")
		if err != nil {
			return answer{}, err
		}
		a.headers[name] = answerHeader{required: h.Required, schema: schema}
	}
	return a, nil
}

func (b builder) compile(at string) (*jsonschema.Schema, error) {
	schema, err := b.compiler.Compile(resource + "#" + at)
	if err != nil {
		return nil, fmt.Errorf("compile the schema at %s: %w", at, err)
	}
	return schema, nil
}

func pointer(parts ...string) string {
	var s strings.Builder
	for _, p := range parts {
		s.WriteString("/" + escape(p))
	}
	return s.String()
}

// escape makes a token of a JSON pointer in a URI fragment.
func escape(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(s)
}

// kindOf is the one type besides null that a parameter's schema allows, following a reference.
func kindOf(s *jsonschema.Schema) string {
	for s.Ref != nil {
		s = s.Ref
	}
	if s.Types == nil {
		return "string"
	}
	return strings.Join(s.Types.ToStrings(), ",")
}
