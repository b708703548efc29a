package contract

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"horcrux/pkg/problem"
)

// MaxBody is how many bytes a JSON body may have.
const MaxBody = 1 << 20

type (
	parameter struct {
		Ref      string `json:"$ref"`
		Name     string `json:"name"`
		In       string `json:"in"`
		Required bool   `json:"required"`
		compiled *jsonschema.Schema
	}
	body struct {
		required bool
		schema   *jsonschema.Schema
	}
)

// HasBody says whether the operation takes a body.
func (o *Operation) HasBody() bool { return o.body != nil }

// CheckBody holds a body against the document: malformed_request (not JSON, invalid UTF-8, a key that is given twice or
// is not documented), unsupported_media_type, body_too_large or invalid_value, each with its fields; nil when it may be
// decoded. A body where none is documented is malformed.
func (o *Operation) CheckBody(contentType string, data []byte) *problem.Problem {
	switch {
	case len(data) > MaxBody:
		return problem.New(problem.BodyTooLarge, "the body has more than %d bytes", MaxBody)
	case o.body == nil && len(data) > 0:
		return problem.New(problem.MalformedRequest, "%s %s takes no body", o.Method, o.Path)
	case o.body == nil || !o.body.required && len(data) == 0:
		return nil
	}
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" {
		return problem.New(problem.UnsupportedMediaType, "the body is %q, not application/json", contentType)
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return malformed(err)
	}
	return explain(o.body.schema.Validate(value), "")
}

// malformed names the place where a body is not strict JSON.
func malformed(err error) *problem.Problem {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return problem.New(problem.MalformedRequest, "the body is not JSON")
	}
	p := problem.New(problem.MalformedRequest, "the body is not JSON: byte %d", syntax.ByteOffset)
	if errors.Is(syntax.Err, jsontext.ErrDuplicateName) {
		p.Detail = "a key is given twice"
	}
	if name := fieldOf(slices.Collect(syntax.JSONPointer.Tokens())); name != "" {
		p.Fields = []problem.Field{{Field: name, Detail: p.Detail}}
		p.Detail = name + ": " + p.Detail
	}
	return p
}

// CheckParameters holds the parameters of a request against the document; path has the unescaped values. An unknown or
// doubled query parameter is malformed_request, a wrong value invalid_value.
func (o *Operation) CheckParameters(path map[string]string, query url.Values, headers http.Header) *problem.Problem {
	var unknown, wrong []problem.Field
	for name, values := range query {
		i := slices.IndexFunc(o.params, func(p parameter) bool { return p.In == "query" && p.Name == name })
		if i < 0 {
			unknown = append(unknown, problem.Field{Field: "query." + name, Detail: "is not a parameter of this path"})
		} else if len(values) > 1 && kindOf(o.params[i].compiled) != "array" {
			unknown = append(unknown, problem.Field{Field: "query." + name, Detail: "is given twice"})
		}
	}
	if len(unknown) > 0 {
		return faults(problem.MalformedRequest, unknown)
	}
	for _, p := range o.params {
		var values []string
		switch p.In {
		case "path":
			values = []string{path[p.Name]}
		case "query":
			values = query[p.Name]
		case "header":
			values = headers.Values(p.Name)
		}
		if len(values) == 0 {
			continue
		}
		if fault := explain(p.compiled.Validate(coerce(p.compiled, values)), p.In+"."+p.Name); fault != nil {
			wrong = append(wrong, fault.Fields...)
		}
	}
	if len(wrong) > 0 {
		return faults(problem.InvalidValue, wrong)
	}
	return nil
}

// coerce reads text as what the schema wants; text that is not stays text, for the schema to refuse.
func coerce(s *jsonschema.Schema, values []string) any {
	switch kindOf(s) {
	case "array":
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
		}
		return list
	case "integer":
		if n, err := strconv.ParseInt(values[0], 10, 64); err == nil {
			return n
		}
	case "boolean":
		if values[0] == "true" || values[0] == "false" {
			return values[0] == "true"
		}
	}
	return values[0]
}

func faults(code problem.Code, fields []problem.Field) *problem.Problem {
	slices.SortFunc(fields, func(a, b problem.Field) int { return strings.Compare(a.Field, b.Field) })
	p := problem.Invalid(fields...)
	p.Code = code
	return p
}
