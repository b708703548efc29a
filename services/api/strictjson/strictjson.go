// Package strictjson reads JSON as a contract: each key once and in its own case, valid UTF-8, one value and nothing
// after it. What encoding/json lets pass is refused by name.
package strictjson

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"horcrux/pkg/problem"
)

// Decode reads one value into v. A key that v does not know, or knows in another case, is malformed_request; a value
// of the wrong type is invalid_value. Both name the field.
func Decode(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &semantic):
		return malformed("", "not valid JSON")
	case errors.Is(err, json.ErrUnknownName):
		return malformed(Field(string(semantic.JSONPointer)), "there is no such key")
	}
	return problem.Invalid(problem.Field{Field: Field(string(semantic.JSONPointer)), Detail: "has the wrong type"})
}

// Check says whether data is one JSON value of the strict kind. Errors are malformed_request, but invalid_value for
// what is valid JSON and yet of no use: a NUL in a text, which nothing can store, and a number beyond all measure.
func Check(data []byte) error {
	d := jsontext.NewDecoder(strings.NewReader(string(data)))
	for depth := -1; depth != 0; depth = d.StackDepth() {
		t, err := d.ReadToken()
		if err != nil {
			return syntax(err)
		}
		switch {
		case t.Kind() == '"' && strings.ContainsRune(t.String(), 0):
			return problem.Invalid(problem.Field{Field: Field(string(d.StackPointer())), Detail: "must not contain NUL"})
		case t.Kind() == '0' && !modest(t.String()):
			return problem.Invalid(problem.Field{Field: Field(string(d.StackPointer())), Detail: "the number is out of range"})
		}
	}
	if _, err := d.ReadToken(); err == nil {
		return malformed("", "there is something after the JSON value")
	} else if !errors.Is(err, io.EOF) {
		return syntax(err)
	}
	return nil
}

// modest says whether a number can be computed with exactly at no cost to speak of.
func modest(number string) bool {
	_, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	e, err := strconv.Atoi(exponent)
	return len(number) <= 64 && (exponent == "" || err == nil && -308 <= e && e <= 308)
}

func syntax(err error) error {
	var s *jsontext.SyntacticError
	if !errors.As(err, &s) {
		if errors.Is(err, io.EOF) {
			return malformed("", "the body is empty")
		}
		return malformed("", "not valid JSON")
	}
	field := Field(string(s.JSONPointer))
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return malformed(field, "the key is there twice")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed(field, "the JSON ends too early")
	case strings.Contains(s.Err.Error(), "UTF-8"): // the package has no sentinel for it
		return malformed(field, "not valid UTF-8")
	}
	return malformed(field, fmt.Sprintf("not valid JSON at byte %d", s.ByteOffset))
}

func malformed(field, detail string) error {
	if field == "" {
		return problem.New(problem.MalformedRequest, "%s", detail)
	}
	p := problem.New(problem.MalformedRequest, "%s: %s", field, detail)
	p.Fields = []problem.Field{{Field: field, Detail: detail}}
	return p
}

// Field turns a JSON pointer into the form in which fields are named: /disks/0/size_gb is disks[0].size_gb.
func Field(pointer string) string {
	var b strings.Builder
	for token := range jsontext.Pointer(pointer).Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strings.ToValidUTF8(token, "\uFFFD"))
	}
	return b.String()
}
