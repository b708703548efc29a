package readmodel

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Query narrows, orders and pages a list.
type Query struct {
	// Filters are query parameters by name. Several values of one are alternatives.
	Filters map[string][]string
	Contain string // in the name, whatever the case
	Sort    string // "name,-created_at"; "" is by name, or by age, youngest first, where names are not unique
	Cursor  string
	Limit   int // at most MaxLimit; 0 means DefaultLimit
}

// Bounds of Query.Limit.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Page is a piece of a list. Its documents are the bytes of the rows, copied once, into the answer that they are for.
type Page struct {
	Next     string          // cursor of the next page, "" at the end
	Position events.Position // the page has everything up to it

	answer []byte  // `{"items":[` and the documents
	buffer *[]byte // of answers, where it came from; nil where there are no documents
	ends   []int   // of each document in it
}

const items = `{"items":[`

// answers are buffers of pages. A page is large, and there is one for each request: made anew, each would be cleared, and
// the garbage collector would have most of its work from them.
var answers = sync.Pool{New: func() any { return new([]byte) }}

// keepAnswer is the largest buffer that is kept.
const keepAnswer = 1 << 20

// add copies a document in.
func (p *Page) add(doc []byte, limit int) {
	if p.answer == nil { // room for a page of documents like this one
		p.buffer = answers.Get().(*[]byte)
		p.answer = append(slices.Grow((*p.buffer)[:0], (len(doc)+64)*min(limit, 2*DefaultLimit)+256), items...)
	} else {
		p.answer = append(p.answer, ',')
	}
	p.answer = append(p.answer, doc...)
	p.ends = append(p.ends, len(p.answer))
}

// Docs are the documents of the page.
func (p *Page) Docs() []json.RawMessage {
	docs := make([]json.RawMessage, len(p.ends))
	begin := len(items)
	for i, end := range p.ends {
		docs[i] = p.answer[begin:end]
		begin = end + 1
	}
	return docs
}

// Free gives the memory of the page back. Nothing that came of Docs or JSON may be used after it.
func (p *Page) Free() {
	if p.buffer == nil || cap(p.answer) > keepAnswer {
		return
	}
	*p.buffer = p.answer
	answers.Put(p.buffer)
	p.answer, p.buffer = nil, nil
}

// JSON is the page as REST returns it. It uses the page up; Free it when that is written.
func (p *Page) JSON() []byte {
	b := p.answer
	if b == nil {
		b = []byte(items)
	}
	b = append(b, `],"next":`...)
	if p.Next == "" {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendQuote(b, p.Next)
	}
	b = append(b, `,"position":`...)
	b = strconv.AppendQuote(b, p.Position.String())
	p.answer = append(b, '}')
	return p.answer
}

// List returns a page of the living objects of a kind. It fails with an invalid_value problem that names the
// parameter.
func (m *Model) List(ctx context.Context, kind string, q Query) (Page, error) {
	p, _, err := m.state(kind)
	if err != nil {
		return Page{}, err
	}
	statement, args, keys, err := compile(p.resource, &q)
	if err != nil {
		return Page{}, err
	}
	rows, err := m.Pool.Query(ctx, statement, args...)
	if err != nil {
		return Page{}, fmt.Errorf("list %s: %w", kind, err)
	}
	defer rows.Close()
	page := Page{Position: p.at, ends: make([]int, 0, q.Limit)}
	last := cursor{Sort: q.Sort, Keys: make([]string, len(keys))}
	dest := []any{nil, &last.ID} // the document is taken as it comes
	times := make([]time.Time, len(keys))
	for i, k := range keys {
		if k.cast == "timestamptz" {
			dest = append(dest, &times[i])
		} else {
			dest = append(dest, &last.Keys[i])
		}
	}
	for rows.Next() {
		if len(page.ends) == q.Limit { // one more than was asked for
			for i, k := range keys {
				if k.cast == "timestamptz" {
					last.Keys[i] = times[i].UTC().Format(time.RFC3339Nano)
				}
			}
			page.Next = last.String()
			break
		}
		page.add(rows.RawValues()[0], q.Limit)
		if len(page.ends) < q.Limit {
			continue // only the last row's keys make a cursor
		}
		if err := rows.Scan(dest...); err != nil {
			return Page{}, fmt.Errorf("list %s: %w", kind, err)
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return Page{}, fmt.Errorf("list %s: %w", kind, err)
	}
	return page, nil
}

// compile makes the statement of a query, and fills in the query's defaults.
func compile(r *events.Resource, q *Query) (statement string, args []any, keys []key, err error) {
	if q.Limit == 0 {
		q.Limit = DefaultLimit
	}
	if q.Limit < 1 || q.Limit > MaxLimit {
		return "", nil, nil, problem.Invalid(problem.Field{Field: "query.limit", Detail: "must be from 1 to " + strconv.Itoa(MaxLimit)})
	}
	if q.Sort == "" {
		q.Sort = "name"
		if r.NameScope == "" {
			q.Sort = "-created_at"
		}
	}
	if keys, err = sortKeys(r, q.Sort); err != nil {
		return "", nil, nil, err
	}
	var from *cursor
	if q.Cursor != "" {
		if from, err = parseCursor(q.Cursor, q.Sort, keys); err != nil {
			return "", nil, nil, err
		}
	}
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	where := []string{
		"gen = (SELECT gen FROM api.projections WHERE kind = " + arg(r.Kind) + ")", // in the rows' own snapshot
		"NOT deleted",
		after(keys, from, arg),
	}
	for _, param := range sorted(q.Filters) {
		candidates, err := containment(r, param, q.Filters[param])
		if err != nil {
			return "", nil, nil, err
		}
		where = append(where, "attrs @> ANY ("+arg(candidates)+"::jsonb[])")
	}
	if q.Contain != "" {
		if strings.ContainsRune(q.Contain, 0) {
			return "", nil, nil, problem.Invalid(problem.Field{Field: "query.q", Detail: "must not contain NUL"})
		}
		where = append(where, "strpos(lower(name), lower("+arg(q.Contain)+")) > 0")
	}
	columns := "doc, id"
	for _, k := range keys {
		if k.cast == "timestamptz" {
			columns += ", " + k.expr
		} else {
			columns += ", " + k.expr + "::text"
		}
	}
	return "SELECT " + columns + " FROM api.views WHERE " + strings.Join(where, " AND ") +
		" ORDER BY " + order(keys) + " LIMIT " + strconv.Itoa(q.Limit+1), args, keys, nil
}

// containment is what the attributes of an object must contain, one alternative for each form that a value can have:
// text, number or boolean, by itself or as an item of an array.
func containment(r *events.Resource, param string, values []string) ([]string, error) {
	field := filterField(r, param)
	invalid := func(detail string) error {
		return problem.Invalid(problem.Field{Field: "query." + param, Detail: detail})
	}
	if !slices.Contains(r.Filters, field) {
		return nil, invalid("not a field to filter by; these are: " + strings.Join(r.Filters, ", "))
	}
	var candidates []string
	for _, v := range values {
		if strings.ContainsRune(v, 0) {
			return nil, invalid("must not contain NUL")
		}
		forms := []any{v}
		if v == "true" || v == "false" {
			forms = append(forms, v == "true")
		}
		if n, err := strconv.ParseFloat(v, 64); err == nil && !math.IsInf(n, 0) && !math.IsNaN(n) {
			forms = append(forms, n)
		}
		for _, form := range forms {
			for _, shape := range []any{form, []any{form}} {
				b, err := json.Marshal(map[string]any{field: shape})
				if err != nil {
					return nil, err
				}
				candidates = append(candidates, string(b))
			}
		}
	}
	return candidates, nil
}

func sorted(m map[string][]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
