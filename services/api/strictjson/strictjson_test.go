package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"horcrux/pkg/problem"
	"horcrux/services/api/strictjson"
)

type body struct {
	Name  string `json:"name"`
	Disks []struct {
		SizeGB int `json:"size_gb"`
	} `json:"disks"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		code     problem.Code
		field    string
	}{
		{"OK", `{"name":"a","disks":[{"size_gb":1}]}`, "", ""},
		{"Spaces", " {\n} ", "", ""},
		{"Empty", ``, problem.MalformedRequest, ""},
		{"Broken", `{"name":`, problem.MalformedRequest, ""},
		{"NotJSON", `hello`, problem.MalformedRequest, ""},
		{"UnknownKey", `{"disks":[{"size":1}]}`, problem.MalformedRequest, "disks[0].size"},
		{"WrongCase", `{"Name":"a"}`, problem.MalformedRequest, "Name"},
		{"DuplicateKey", `{"disks":[{"size_gb":1,"size_gb":2}]}`, problem.MalformedRequest, "disks[0].size_gb"},
		{"InvalidUTF8", "{\"name\":\"\xff\"}", problem.MalformedRequest, "name"},
		{"LoneSurrogate", `{"name":"\ud800"}`, problem.MalformedRequest, "name"},
		{"Trailing", `{} {}`, problem.MalformedRequest, ""},
		{"TrailingGarbage", `{} x`, problem.MalformedRequest, ""},
		{"WrongType", `{"disks":[{"size_gb":"1"}]}`, problem.InvalidValue, "disks[0].size_gb"},
		{"HugeNumber", `{"disks":[{"size_gb":1e999999999}]}`, problem.InvalidValue, "disks[0].size_gb"},
		{"TinyNumber", `{"disks":[{"size_gb":1E-999999999}]}`, problem.InvalidValue, "disks[0].size_gb"},
		{"LongNumber", `{"disks":[{"size_gb":` + strings.Repeat("9", 100) + `}]}`, problem.InvalidValue, "disks[0].size_gb"},
		{"NUL", `{"name":"a\u0000b"}`, problem.InvalidValue, "name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b body
			err := strictjson.Decode([]byte(tt.in), &b)
			p := problem.From(err)
			switch {
			case tt.code == "":
				if err != nil {
					t.Error(err)
				}
			case p == nil || p.Code != tt.code:
				t.Errorf("%v, want %s", err, tt.code)
			case tt.field != "" && (len(p.Fields) != 1 || p.Fields[0].Field != tt.field):
				t.Errorf("fields %+v, want %s", p.Fields, tt.field)
			}
		})
	}
}

// FuzzCheck holds Check against encoding/json: whatever is strict is JSON, and never panics.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,{"b":null}]}`, "\"\xff\"", `[1,2`, `{"a":1,"a":2}`, `1 2`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := strictjson.Check(data)
		if err == nil && (!json.Valid(data) || !utf8.Valid(data)) {
			t.Errorf("took %q", data)
		}
		if err != nil && problem.From(err) == nil {
			t.Errorf("%v is no problem", err)
		}
	})
}
