package readmodel

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// key is one field by which a list is sorted.
type key struct {
	field string
	desc  bool
	expr  string // SQL
	cast  string // of a cursor's value
}

// cursor is the last row of a page. To users it is an opaque string.
type cursor struct {
	Sort string    `json:"s"`
	Keys []string  `json:"k"`
	ID   uuid.UUID `json:"i"`
}

// sortKeys reads "name,-created_at".
func sortKeys(r *events.Resource, text string) ([]key, error) {
	var keys []key
	for _, part := range strings.Split(text, ",") {
		field, desc := strings.CutPrefix(part, "-")
		k := key{field: field, desc: desc}
		switch field {
		case "name":
			k.expr, k.cast = "name", "text"
		case "created_at", "updated_at":
			k.expr, k.cast = field, "timestamptz"
		default:
			field = filterField(r, field)
			if !slices.Contains(r.Filters, field) {
				return nil, problem.Invalid(problem.Field{
					Field: "query.sort",
					Detail: fmt.Sprintf("%q is not a field to sort by; these are: name, created_at, updated_at, %s",
						k.field, strings.Join(r.Filters, ", ")),
				})
			}
			k.expr, k.cast = "(attrs->'"+field+"')", "jsonb"
		}
		if slices.ContainsFunc(keys, func(o key) bool { return o.expr == k.expr }) {
			return nil, problem.Invalid(problem.Field{Field: "query.sort", Detail: fmt.Sprintf("%q is given twice", k.field)})
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// filterField is the field of the view behind a query parameter.
func filterField(r *events.Resource, param string) string {
	if field, ok := r.FilterNames[param]; ok {
		return field
	}
	return param
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and a uuid
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor reads what String wrote for the same sort, and nothing that the database would choke on.
func parseCursor(text, sort string, keys []key) (*cursor, error) {
	bad := problem.Invalid(problem.Field{Field: "query.cursor", Detail: "not a cursor of this list and sort order"})
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, bad
	}
	var c cursor
	if err := json.Unmarshal(b, &c); err != nil || c.Sort != sort || len(c.Keys) != len(keys) || c.String() != text {
		return nil, bad
	}
	for i, k := range keys {
		switch k.cast {
		case "timestamptz":
			_, err = time.Parse(time.RFC3339Nano, c.Keys[i])
		case "jsonb":
			if !json.Valid([]byte(c.Keys[i])) || bytes.Contains([]byte(c.Keys[i]), []byte(`\u0000`)) || len(c.Keys[i]) > 4096 {
				err = bad
			}
		default:
			if strings.ContainsRune(c.Keys[i], 0) {
				err = bad
			}
		}
		if err != nil {
			return nil, bad
		}
	}
	return &c, nil
}

// after is the condition that a row comes after the cursor's, and order the ORDER BY that goes with it. arg adds an
// argument and returns its placeholder.
func after(keys []key, c *cursor, arg func(any) string) string {
	if c == nil {
		return "true"
	}
	id := arg(c.ID)
	values := make([]string, len(keys))
	for i, k := range keys {
		values[i] = arg(c.Keys[i]) + "::text::" + k.cast
	}
	if len(keys) == 1 { // a row comparison, which an index answers
		return fmt.Sprintf("(%s, id) %s (%s, %s)", keys[0].expr, direction(keys[0].desc), values[0], id)
	}
	var alternatives []string
	equal := ""
	for i, k := range keys {
		alternatives = append(alternatives, fmt.Sprintf("(%s%s %s %s)", equal, k.expr, direction(k.desc), values[i]))
		equal += fmt.Sprintf("%s = %s AND ", k.expr, values[i])
	}
	last := keys[len(keys)-1]
	alternatives = append(alternatives, fmt.Sprintf("(%sid %s %s)", equal, direction(last.desc), id))
	return "(" + strings.Join(alternatives, " OR ") + ")"
}

func order(keys []key) string {
	var parts []string
	for _, k := range append(slices.Clone(keys), key{expr: "id", desc: keys[len(keys)-1].desc}) {
		if k.desc {
			k.expr += " DESC"
		}
		parts = append(parts, k.expr)
	}
	return strings.Join(parts, ", ")
}

func direction(desc bool) string {
	if desc {
		return "<"
	}
	return ">"
}
