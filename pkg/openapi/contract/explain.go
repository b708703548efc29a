package contract

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"horcrux/pkg/problem"
)

// explain turns what a schema says into a problem: invalid_value, or malformed_request where a key is not documented.
// prefix is put before the fields' names.
func explain(err error, prefix string) *problem.Problem {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	var unknown, wrong []problem.Field
	for _, leaf := range leaves(invalid) {
		field := join(prefix, fieldOf(leaf.InstanceLocation))
		switch k := leaf.ErrorKind.(type) {
		case *kind.AdditionalProperties:
			for _, name := range k.Properties {
				unknown = append(unknown, problem.Field{Field: join(field, name), Detail: "is not a documented field"})
			}
		case *kind.Required:
			for _, name := range k.Missing {
				wrong = append(wrong, problem.Field{Field: join(field, name), Detail: "is required"})
			}
		default:
			if field == "" {
				field = "body"
			}
			wrong = append(wrong, problem.Field{Field: field, Detail: sentence(leaf.ErrorKind)})
		}
	}
	if len(unknown) > 0 {
		return faults(problem.MalformedRequest, unknown)
	}
	return faults(problem.InvalidValue, wrong)
}

func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var all []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		all = append(all, leaves(cause)...)
	}
	return all
}

// sentence says what would be right. It never repeats the value: that may be long, or not for a log.
func sentence(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be " + strings.Join(k.Want, " or ") + ", not " + k.Got
	case *kind.Enum:
		words := make([]string, len(k.Want))
		for i, w := range k.Want {
			words[i] = fmt.Sprint(w)
		}
		return "must be one of " + strings.Join(words, ", ")
	case *kind.Pattern:
		return "must match " + k.Want
	case *kind.Format:
		return "must be a " + k.Want
	case *kind.Minimum:
		return "must be at least " + k.Want.RatString()
	case *kind.Maximum:
		return "must be at most " + k.Want.RatString()
	case *kind.MinLength:
		return fmt.Sprintf("must have at least %d characters", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d items", k.Want)
	case *kind.MinProperties:
		return "must name at least one field"
	case *kind.UniqueItems:
		return "must not repeat an item"
	}
	return k.LocalizedString(english)
}

var english = message.NewPrinter(language.English)

// fieldOf writes the tokens of a JSON pointer as disks[0].size_gb.
func fieldOf(tokens []string) string {
	var s strings.Builder
	for _, t := range tokens {
		if _, err := strconv.ParseUint(t, 10, 31); err == nil {
			s.WriteString("[" + t + "]")
			continue
		}
		if s.Len() > 0 {
			s.WriteByte('.')
		}
		s.WriteString(t)
	}
	return s.String()
}

func join(prefix, field string) string {
	if prefix == "" || field == "" || field[0] == '[' {
		return prefix + field
	}
	return prefix + "." + field
}
