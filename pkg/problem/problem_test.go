package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"horcrux/pkg/problem"
)

func TestProblemIsAnError(t *testing.T) {
	p := problem.New(problem.NameTaken, "the name %q is taken", "web-1")
	if got, want := p.Error(), `name_taken: the name "web-1" is taken`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("create vm: %w", p)
	if got := problem.From(wrapped); got != p {
		t.Errorf("From finds %v", got)
	}
	for _, err := range []error{nil, errors.New("disk on fire")} {
		if got := problem.From(err); got != nil {
			t.Errorf("From finds %v in %v", got, err)
		}
	}
	if !errors.Is(wrapped, &problem.Problem{Code: problem.NameTaken}) {
		t.Error("is not of its own code")
	}
	for _, other := range []error{&problem.Problem{Code: problem.InUse}, errors.New(p.Error())} {
		if errors.Is(wrapped, other) {
			t.Errorf("is %v", other)
		}
	}
}

func TestInvalid(t *testing.T) {
	cpus, memory := problem.Field{Field: "cpus", Detail: "is 0"}, problem.Field{Field: "memory_mb", Detail: "is over 1024"}
	for _, c := range []struct {
		fields []problem.Field
		detail string
	}{
		{nil, "the request has an invalid value"},
		{[]problem.Field{cpus}, "cpus: is 0"},
		{[]problem.Field{cpus, memory}, "the request has 2 invalid values"},
	} {
		p := problem.Invalid(c.fields...)
		if want := (&problem.Problem{Code: problem.InvalidValue, Detail: c.detail, Fields: c.fields}); !reflect.DeepEqual(p, want) {
			t.Errorf("got %+v, want %+v", p, want)
		}
	}
}

// Problems are recorded in events: their bytes do not change.
func TestGolden(t *testing.T) {
	for want, p := range map[string]*problem.Problem{
		`{"code":"in_use","detail":"attached"}`: problem.New(problem.InUse, "attached"),
		`{"code":"invalid_state","detail":"busy","fields":[{"field":"cpus","detail":"is 0"}],"operation":"01900000-0000-7000-8000-000000000004"}`: {
			Code: problem.InvalidState, Detail: "busy", Fields: []problem.Field{{Field: "cpus", Detail: "is 0"}}, Operation: "01900000-0000-7000-8000-000000000004",
		},
	} {
		doc, err := json.Marshal(p)
		if err != nil || string(doc) != want {
			t.Errorf("written as %s, %v; want %s", doc, err, want)
		}
		var got problem.Problem
		if err := json.Unmarshal([]byte(want), &got); err != nil || !reflect.DeepEqual(&got, p) {
			t.Errorf("%s is read as %+v, %v", want, got, err)
		}
	}
}
