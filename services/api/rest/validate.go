package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"horcrux/pkg/problem"
	"horcrux/services/api/strictjson"
)

// Bounds of a request's body.
const (
	maxBody  = 1 << 20
	bodyTime = 30 * time.Second
)

// readBody reads and checks the body of a request against its route: size, media type, strict JSON, schema.
func (r *route) readBody(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	tooLarge := problem.New(problem.BodyTooLarge, "the body is larger than %d bytes", maxBody)
	if req.ContentLength > maxBody {
		return nil, tooLarge
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("read body: %w", err)
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		if limit := (*http.MaxBytesError)(nil); errors.As(err, &limit) {
			return nil, tooLarge
		}
		return nil, problem.New(problem.MalformedRequest, "the body could not be read to its end")
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("read body: %w", err)
	}
	switch {
	case len(data) == 0 && (r.body == nil || !r.body.required):
		return nil, nil
	case len(data) == 0:
		return nil, problem.New(problem.MalformedRequest, "a body is needed")
	case r.body == nil:
		return nil, problem.New(problem.MalformedRequest, "this takes no body")
	}
	if media, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, problem.New(problem.UnsupportedMediaType, "the body must be application/json")
	}
	if err := strictjson.Check(data); err != nil {
		return nil, err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, problem.New(problem.MalformedRequest, "not valid JSON")
	}
	return data, violations("", r.body.schema.Validate(v))
}

// checkParams checks the parameters of a request. path returns the raw value of a path parameter.
func (r *route) checkParams(req *http.Request, query url.Values, path func(string) string) error {
	for name := range query {
		if !slices.ContainsFunc(r.params, func(p param) bool { return p.in == "query" && p.name == name }) {
			return malformed("query."+strings.ToValidUTF8(name, "\uFFFD"), "there is no such parameter")
		}
	}
	var fields []problem.Field
	for _, p := range r.params {
		var values []string
		switch p.in {
		case "query":
			values = query[p.name]
		case "header":
			values = req.Header.Values(p.name)
		case "path":
			raw, err := url.PathUnescape(path(p.name))
			if err != nil {
				return malformed("path."+p.name, "not validly escaped")
			}
			values = []string{raw}
		}
		if len(values) == 0 {
			if p.required {
				fields = append(fields, problem.Field{Field: p.field(), Detail: "is required"})
			}
			continue
		}
		v, err := p.parse(values)
		if err == nil {
			err = violations(p.field(), p.schema.Validate(v))
		}
		if err != nil {
			q := problem.From(err)
			if q == nil || q.Code != problem.InvalidValue {
				return err
			}
			fields = append(fields, q.Fields...)
		}
	}
	if fields != nil {
		return problem.Invalid(fields...)
	}
	return nil
}

func (p param) field() string { return p.in + "." + p.name }

// parse makes the JSON value of a parameter's text.
func (p param) parse(values []string) (any, error) {
	for _, v := range values {
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return nil, malformed(p.field(), "not valid UTF-8 without NUL")
		}
	}
	if p.kind == "array" {
		items := make([]any, len(values))
		for i, v := range values {
			items[i] = v
		}
		return items, nil
	}
	if len(values) > 1 {
		return nil, malformed(p.field(), "may be given once")
	}
	invalid := func(detail string) error { return problem.Invalid(problem.Field{Field: p.field(), Detail: detail}) }
	switch v := values[0]; p.kind {
	case "integer":
		if _, err := strconv.ParseInt(v, 10, 64); err != nil {
			return nil, invalid("must be an integer")
		}
		return json.Number(v), nil
	case "boolean":
		if v != "true" && v != "false" {
			return nil, invalid("must be true or false")
		}
		return v == "true", nil
	default:
		return v, nil
	}
}

func malformed(field, detail string) error {
	p := problem.New(problem.MalformedRequest, "%s: %s", field, detail)
	p.Fields = []problem.Field{{Field: field, Detail: detail}}
	return p
}

// violations makes a problem of what a schema found wrong below a field: malformed_request for keys that do not exist,
// otherwise invalid_value.
func violations(below string, err error) error {
	var invalid *jsonschema.ValidationError
	if err == nil || !errors.As(err, &invalid) {
		return err
	}
	unknown, wrong := leaves(below, invalid, nil, nil)
	for _, fields := range [][]problem.Field{unknown, wrong} {
		slices.SortFunc(fields, func(a, b problem.Field) int { return strings.Compare(a.Field, b.Field) })
	}
	if len(unknown) > 0 {
		p := problem.New(problem.MalformedRequest, "%s: %s", unknown[0].Field, unknown[0].Detail)
		p.Fields = unknown
		return p
	}
	return problem.Invalid(wrong...)
}

var english = message.NewPrinter(language.English)

func leaves(below string, e *jsonschema.ValidationError, unknown, wrong []problem.Field) (u, w []problem.Field) {
	at := func(tokens ...string) string {
		var pointer strings.Builder
		if below != "" {
			pointer.WriteString("/" + escape(below))
		}
		for _, t := range append(slices.Clone(e.InstanceLocation), tokens...) {
			pointer.WriteString("/" + escape(t))
		}
		if pointer.Len() == 0 {
			return "body" // the whole of it
		}
		return strictjson.Field(pointer.String())
	}
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, key := range k.Properties {
			unknown = append(unknown, problem.Field{Field: at(key), Detail: "there is no such key"})
		}
		return unknown, wrong
	case *kind.Required:
		for _, key := range k.Missing {
			wrong = append(wrong, problem.Field{Field: at(key), Detail: "is required"})
		}
		return unknown, wrong
	case *kind.Schema, *kind.Reference, *kind.Group, *kind.AllOf:
	default:
		if len(e.Causes) == 0 || isChoice(k) {
			if !slices.ContainsFunc(wrong, func(f problem.Field) bool { return f.Field == at() }) { // one complaint is enough
				wrong = append(wrong, problem.Field{Field: at(), Detail: complaint(k)})
			}
			return unknown, wrong
		}
	}
	for _, cause := range e.Causes {
		unknown, wrong = leaves(below, cause, unknown, wrong)
	}
	return unknown, wrong
}

// complaint is what a value would have to be. Bounds are said here: the validator's words have 1.6777216×10⁰⁷ for 16777216.
func complaint(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Minimum:
		return "must be at least " + k.Want.RatString()
	case *kind.Maximum:
		return "must be at most " + k.Want.RatString()
	case *kind.MinLength:
		return atLeast(k.Want, "characters")
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters", k.Want)
	case *kind.MinItems:
		return atLeast(k.Want, "items")
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d items", k.Want)
	case *kind.Pattern: // without what was given, which may be a password
		return fmt.Sprintf("must match %s", k.Want)
	case *kind.MinProperties:
		return atLeast(k.Want, "keys")
	}
	return shorten(k.LocalizedString(english))
}

func atLeast(n int, of string) string {
	if n == 1 {
		return "must not be empty"
	}
	return fmt.Sprintf("must have at least %d %s", n, of)
}

func isChoice(k jsonschema.ErrorKind) bool {
	switch k.(type) {
	case *kind.AnyOf, *kind.OneOf:
		return true
	}
	return false
}

// shorten keeps a large value of the request out of the answer.
func shorten(text string) string {
	const limit = 300
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
