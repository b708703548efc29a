package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"horcrux/pkg/events"
	"horcrux/services/api/submit"
)

// answer is any answer of the server. Its body is bytes, so that documents of the read model are copied through; the
// whole-system tests hold every one of them against the OpenAPI document. It implements the answer of each generated
// operation (visit.go).
type answer struct {
	status int
	header map[string]string
	body   []byte
	stream func(http.ResponseWriter) error // instead of a body
	done   func()                          // called once the body is written; nil for nothing
}

func (a answer) write(w http.ResponseWriter) error {
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	if a.stream != nil {
		return a.stream(w)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, err := w.Write(a.body)
	if a.done != nil {
		a.done()
	}
	return err
}

// document answers 200 with JSON that is known to be right.
func document(body []byte, known events.Position) answer {
	return answer{status: http.StatusOK, body: body, header: map[string]string{
		"Content-Type": "application/json", events.PositionHeader: known.String(),
	}}
}

// value answers 200 with the JSON of v.
func value(v any) (answer, error) {
	b, err := json.Marshal(v)
	return answer{status: http.StatusOK, body: b, header: map[string]string{"Content-Type": "application/json"}}, err
}

// view answers 200 with a view of an object.
func view(doc []byte, version int64, known events.Position) answer {
	a := document(doc, known)
	a.header["ETag"] = fmt.Sprintf(`"%d"`, version)
	return a
}

// accepted answers with what became of a call: 202, or 200 when the caller wanted to wait.
func accepted(op submit.Operation, waited bool) answer {
	a := document(op.Doc, op.Position)
	a.header["Location"] = "/api/operations/" + op.ID.String()
	if !waited {
		a.status = http.StatusAccepted
	}
	return a
}
