package contract

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"horcrux/pkg/problem"
)

type (
	answer struct {
		content map[string]*jsonschema.Schema
		headers map[string]answerHeader
	}
	answerHeader struct {
		required bool
		schema   *jsonschema.Schema
	}
)

// CheckAnswer says in what an answer differs from the document: its status, media type, headers, body, and for a
// problem its code and whether the document lists that for the operation. A stream's body is not looked at.
func (o *Operation) CheckAnswer(status int, headers http.Header, data []byte) error {
	a, documented := o.answers[strconv.Itoa(status)]
	if !documented {
		a = o.answers["default"]
	}
	media, _, err := mime.ParseMediaType(headers.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("%s: status %d: content type %q: %w", o.ID, status, headers.Get("Content-Type"), err)
	}
	schema, ok := a.content[media]
	if !ok {
		return fmt.Errorf("%s: status %d is not documented with %s", o.ID, status, media)
	}
	for name, h := range a.headers {
		value := headers.Get(name)
		if value == "" {
			if h.required {
				return fmt.Errorf("%s: status %d lacks the header %s", o.ID, status, name)
			}
			continue
		}
		if err := h.schema.Validate(value); err != nil {
			return fmt.Errorf("%s: status %d: header %s: %w", o.ID, status, name, err)
		}
	}
	if !strings.HasSuffix(media, "json") {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: status %d: %w", o.ID, status, err)
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("%s: status %d: %w", o.ID, status, err)
	}
	if media == "application/problem+json" {
		return o.checkProblem(status, data)
	}
	return nil
}

func (o *Operation) checkProblem(status int, data []byte) error {
	var p struct {
		Status int          `json:"status"`
		Code   problem.Code `json:"code"`
		Title  string       `json:"title"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("%s: problem: %w", o.ID, err)
	}
	switch {
	case p.Status != status || p.Code.Status() != status:
		return fmt.Errorf("%s: status %d, in the body %d, of %s %d", o.ID, status, p.Status, p.Code, p.Code.Status())
	case p.Title != p.Code.Title():
		return fmt.Errorf("%s: title %q of %s", o.ID, p.Title, p.Code)
	case !o.mayAnswer(p.Code):
		return fmt.Errorf("%s: x-problems does not list %s", o.ID, p.Code)
	}
	return nil
}
