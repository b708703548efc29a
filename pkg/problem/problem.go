// Package problem is the one error model that crosses a border of Horcrux: a code of the catalogue, a sentence for a
// person, and the fields that have to be mended. The gateway writes it as RFC 9457 application/problem+json; a
// rejected command and a failed operation keep it as it is.
package problem

import (
	"errors"
	"fmt"
)

// Field names one value of a request that has to be mended.
type Field struct {
	Field  string `json:"field"`  // path in the body, "disks[0].size_gb"; or "query.limit", "header.If-Match"
	Detail string `json:"detail"` // what is wrong and what would be right
}

// Problem is an error whose text may be shown to a user. It never carries a driver's raw text.
type Problem struct {
	Code   Code    `json:"code"`
	Detail string  `json:"detail"`
	Fields []Field `json:"fields,omitempty"`
	// Operation is the operation that stands in the way (409 invalid_state), "" otherwise.
	Operation string `json:"operation,omitempty"`
}

func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// Is makes errors.Is(err, &Problem{Code: c}) compare codes.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// New returns a problem of a code.
func New(code Code, format string, args ...any) *Problem {
	return &Problem{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Invalid returns invalid_value for the fields given.
func Invalid(fields ...Field) *Problem {
	detail := "the request has an invalid value"
	if len(fields) == 1 {
		detail = fields[0].Field + ": " + fields[0].Detail
	} else if len(fields) > 1 {
		detail = fmt.Sprintf("the request has %d invalid values", len(fields))
	}
	return &Problem{Code: InvalidValue, Detail: detail, Fields: fields}
}

// From returns the problem in err's chain, or nil.
func From(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}
