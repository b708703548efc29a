package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"
)

// load loads a file's text ("" for no file), an environment and arguments.
func load(t *testing.T, file string, env map[string]string, args ...string) (*Loaded, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "horcrux.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse(append([]string{"--config", path}, args...)); err != nil {
		t.Fatal(err)
	}
	return Load(flags, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

func mustLoad(t *testing.T, file string, env map[string]string, args ...string) *Loaded {
	t.Helper()
	l, err := load(t, file, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLoadNothing(t *testing.T) {
	if l := mustLoad(t, "", nil); !reflect.DeepEqual(l.Config, Default()) {
		t.Fatalf("got %+v", l.Config)
	}
}

func TestSampleIsTrue(t *testing.T) {
	sample, err := os.ReadFile("../../../../deploy/horcrux.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen = "[::]:8006" // also where a build without IPv6 has a default of its own
	if l := mustLoad(t, string(sample), nil); !reflect.DeepEqual(l.Config, want) {
		t.Errorf("its values are not the defaults: %+v", l.Config)
	}
	for _, k := range keys {
		member := k.name[strings.LastIndex(k.name, ".")+1:]
		if !strings.Contains(string(sample), member+":") {
			t.Errorf("it does not have %s", k.name)
		}
		if !strings.Contains(string(sample), "(--"+k.flag) {
			t.Errorf("it does not name --%s", k.flag)
		}
		if k.ambient != "" && !strings.Contains(string(sample), k.ambient) {
			t.Errorf("it does not name %s", k.ambient)
		}
	}
}

func TestEveryKeyCanBeSetEverywhere(t *testing.T) {
	values := map[string]string{
		"data_dir": "/srv/hx", "listen": "127.0.0.1:1", "services": "api", "database": "postgres://db/x",
		"nats.url": "nats://n:4222", "nats.credentials": "/etc/n.creds", "master_key": "/etc/m.key", "libvirt.uri": "test:///default",
		"libvirt.private": "no", "accelerator": "tcg", "image_dirs": "/srv/iso", "log.level": "debug",
		"log.format": "json", "otlp.endpoint": "http://o:4318", "otlp.traces": "https://t/in", "node.id": "01900000-0000-7000-8000-000000000001", "node.name": "n1", "deadline": "30s",
	}
	want := &Config{
		DataDir: "/srv/hx", Listen: "127.0.0.1:1", Services: []string{"api"}, Database: "postgres://db/x",
		NATS: NATS{URL: "nats://n:4222", Credentials: "/etc/n.creds"}, Libvirt: Libvirt{URI: "test:///default", Private: "no"},
		Accelerator: "tcg", MasterKey: "/etc/m.key", ImageDirs: []string{"/srv/iso"}, Log: Log{Level: slog.LevelDebug, Format: "json"},
		OTLP: OTLP{Endpoint: "http://o:4318", Traces: "https://t/in"},
		Node: Node{ID: uuid.MustParse("01900000-0000-7000-8000-000000000001"), Name: "n1"}, Deadline: 30 * time.Second,
	}
	env, args := map[string]string{}, []string(nil)
	for _, k := range keys {
		env[k.env()] = values[k.name]
		args = append(args, "--"+k.flag, values[k.name])
	}
	file := `
data_dir: /srv/hx
listen: 127.0.0.1:1
services: [api]
database: postgres://db/x
nats: {url: "nats://n:4222", credentials: /etc/n.creds}
master_key: /etc/m.key
libvirt: {uri: "test:///default", private: no}
accelerator: tcg
image_dirs: [/srv/iso]
log: {level: debug, format: json}
otlp: {endpoint: "http://o:4318", traces: "https://t/in"}
node: {id: 01900000-0000-7000-8000-000000000001, name: n1}
deadline: 30s
`
	for name, got := range map[string]*Loaded{
		"file": mustLoad(t, file, nil), "environment": mustLoad(t, "", env), "flags": mustLoad(t, "", nil, args...),
	} {
		if !reflect.DeepEqual(got.Config, want) {
			t.Errorf("%s: got %+v", name, got.Config)
		}
	}
}

func TestStrongerSourceWins(t *testing.T) {
	const key = "libvirt.uri"
	ambient := map[string]string{"LIBVIRT_DEFAULT_URI": "ambient:///"}
	both := map[string]string{"LIBVIRT_DEFAULT_URI": "ambient:///", "HORCRUX_LIBVIRT_URI": "own:///"}
	file := "libvirt: {uri: 'file:///'}"
	for _, c := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want string
		from string
	}{
		{"default", "", nil, nil, "", ""},
		{"ecosystem", "", ambient, nil, "ambient:///", "LIBVIRT_DEFAULT_URI"},
		{"null in the file changes nothing", "libvirt: {uri: null}", ambient, nil, "ambient:///", "LIBVIRT_DEFAULT_URI"},
		{"file over ecosystem", file, ambient, nil, "file:///", "horcrux.yaml:1"},
		{"environment over file", file, both, nil, "own:///", "HORCRUX_LIBVIRT_URI"},
		{"flag over all", file, both, []string{"--libvirt-uri=flag:///"}, "flag:///", "--libvirt-uri"},
		{"empty variable is none", file, map[string]string{"HORCRUX_LIBVIRT_URI": ""}, nil, "file:///", "horcrux.yaml:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := mustLoad(t, c.file, c.env, c.args...)
			if l.Libvirt.URI != c.want || !strings.HasSuffix(l.origin[key], c.from) {
				t.Fatalf("got %q from %q, want %q from %q", l.Libvirt.URI, l.origin[key], c.want, c.from)
			}
		})
	}
}

func TestMistakesNameTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want []string
	}{
		{"unknown key", "listen: 1.2.3.4:5\nlitsen: x\n", nil, nil, []string{"horcrux.yaml:2: unknown key litsen"}},
		{"unknown member", "log:\n  level: info\n  colour: red\n", nil, nil, []string{":3: unknown key log.colour"}},
		{"wrong case", "Listen: x\n", nil, nil, []string{":1: unknown key Listen"}},
		{"group by a dot", "log.level: info\n", nil, nil, []string{":1: unknown key log.level"}},
		{"twice", "listen: 1.2.3.4:5\n\nlisten: 1.2.3.4:6\n", nil, nil, []string{":3:", "line 1"}},
		{"list for a value", "listen: [a]\n", nil, nil, []string{":1: listen needs one plain value"}},
		{"value for a list", "services: api\n", nil, nil, []string{":1: services needs a list"}},
		{"mapping in a list", "services: [api, {a: b}]\n", nil, nil, []string{":1: services needs a list of plain values"}},
		{"value for a group", "log: info\n", nil, nil, []string{":1: log needs keys"}},
		{"list for the file", "- a\n", nil, nil, []string{":1: the file needs keys"}},
		{"alias", "node: {name: &a n}\nlog: {format: *a}\n", nil, nil, []string{":2: log.format needs one plain value"}},
		{"not YAML", "listen: [\n", nil, nil, []string{"horcrux.yaml", "line"}},
		{"two documents", "listen: 1.2.3.4:5\n---\nlisten: 1.2.3.4:6\n", nil, nil, []string{"more than one document"}},
		{"value of the file", "\naccelerator: xen\n", nil, nil, []string{":2: accelerator:", "xen", "kvm"}},
		{"value of the environment", "", map[string]string{"HORCRUX_DEADLINE": "1"}, nil, []string{"HORCRUX_DEADLINE:", "10m"}},
		{"value of a flag", "", nil, []string{"--listen=8006"}, []string{"--listen:", "[::]:8006"}},
		{"empty list", "services: []\n", nil, nil, []string{":1: services:", "empty"}},
		{"item twice", "services: [api, api]\n", nil, nil, []string{":1: services:", "twice"}},
		{"relative folder", "image_dirs: [iso]\n", nil, nil, []string{":1: image_dirs:", "absolute"}},
		{"label", "node: {name: a_b}\n", nil, nil, []string{":1: node.name:"}},
		{"node without an id", "node: {id: host-1}\n", nil, nil, []string{":1: node.id:", "host-1", "not a UUID"}},
		{"node with an id spelled odd", "", map[string]string{"HORCRUX_NODE_ID": "{01900000-0000-7000-8000-000000000001}"}, nil, []string{"HORCRUX_NODE_ID:", "not a UUID"}},
		{"node with the id of none", "", nil, []string{"--node-id=00000000-0000-0000-0000-000000000000"}, []string{"--node-id:", "not a UUID"}},
		{"port", "listen: ':65536'\n", nil, nil, []string{":1: listen:"}},
		{"all at once", "a: 1\nb: 2\n", nil, []string{"--accelerator=x"}, []string{"key a", "key b", "--accelerator"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.file, c.env, c.args...)
			if err == nil {
				t.Fatal("it was accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestListenerCanBeLeftOut(t *testing.T) {
	for name, l := range map[string]*Loaded{
		"file": mustLoad(t, "listen: ''\n", nil), "flag": mustLoad(t, "", nil, "--listen", ""),
	} {
		if l.Listen != "" {
			t.Errorf("%s: got %q", name, l.Listen)
		}
	}
}

func TestFileThatIsNamedMustExist(t *testing.T) {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(flags)
	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(flags, func(name string) (string, bool) { return missing, name == FileEnv })
	if err == nil || !strings.Contains(err.Error(), missing) {
		t.Fatalf("got %v", err)
	}
}

func TestChanges(t *testing.T) {
	before, after := Default(), Default()
	after.Log.Level, after.Listen, after.Services = slog.LevelDebug, "127.0.0.1:1", []string{"api"}
	live, restart := before.Changes(after)
	if !slices.Equal(live, []string{"log.level"}) || !slices.Equal(restart, []string{"listen", "services"}) {
		t.Fatalf("live %v, restart %v", live, restart)
	}
	if live, restart := before.Changes(Default()); live != nil || restart != nil {
		t.Fatalf("nothing changed, but live %v, restart %v", live, restart)
	}
}

func TestExplain(t *testing.T) {
	l := mustLoad(t, "listen: 1.2.3.4:5\n", nil,
		"--database=postgres://u:geheim@h/d", "--nats=nats://h?password=geheim")
	var out strings.Builder
	if err := l.Explain(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "geheim") {
		t.Errorf("it shows a password:\n%s", &out)
	}
	for _, want := range []string{"1.2.3.4:5", "horcrux.yaml:1", "--database", "default"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %s:\n%s", want, &out)
		}
	}
	if got := redact("host=h password=geheim"); strings.Contains(got, "geheim") {
		t.Errorf("a DSN of keywords shows its password: %s", got)
	}
	if got := strings.Count(out.String(), "\n"); got != len(keys) {
		t.Errorf("%d lines for %d keys", got, len(keys))
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"listen: x\n", "log: {level: info}\n", "a: &a [*a]\n", "? [x]\n: y\n", "<<: {a: b}\n", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		settings, err := parse("file", raw)
		for _, s := range settings {
			if _, known := find(s.key.name); !known || (len(s.texts) != 1 && !s.key.value.isList()) {
				t.Fatalf("got %+v, %v", s, err)
			}
		}
	})
}
