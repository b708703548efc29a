package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// key is one setting, known by one name in every source.
type key struct {
	name    string // in the file, "." between a group and its member
	flag    string
	ambient string // the ecosystem's variable, "" where there is none
	usage   string
	live    bool // a running process can take a new value
	secret  bool // the value may hold a password
	value   value
}

// env is the variable of our own.
func (k key) env() string {
	return "HORCRUX_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

var keys = []key{
	{
		name: "data_dir", flag: "data-dir", usage: "folder of the installation",
		value: text(func(c *Config) *string { return &c.DataDir }, nil),
	},
	{
		name: "listen", flag: "listen", usage: "address of the HTTPS listener, \"\" for none",
		value: text(func(c *Config) *string { return &c.Listen }, address),
	},
	{
		name: "services", flag: "services", usage: "services to run in this process: " + strings.Join(Services, ","),
		value: subset(func(c *Config) *[]string { return &c.Services }, Services...),
	},
	{
		name: "database", flag: "database", ambient: "DATABASE_URL", secret: true,
		usage: "DSN of an existing Postgres, in place of a private one",
		value: text(func(c *Config) *string { return &c.Database }, nil),
	},
	{
		name: "nats.url", flag: "nats", ambient: "NATS_URL", secret: true,
		usage: "URL of an existing NATS server, in place of the embedded one",
		value: text(func(c *Config) *string { return &c.NATS.URL }, nil),
	},
	{
		name: "nats.credentials", flag: "nats-credentials", usage: "file of credentials for --nats",
		value: text(func(c *Config) *string { return &c.NATS.Credentials }, absolute),
	},
	{
		name: "libvirt.uri", flag: "libvirt-uri", ambient: "LIBVIRT_DEFAULT_URI", usage: "URI of libvirt",
		value: text(func(c *Config) *string { return &c.Libvirt.URI }, nil),
	},
	{
		name: "libvirt.private", flag: "libvirt-private", usage: "run a private libvirtd: auto, yes or no",
		value: word(func(c *Config) *string { return &c.Libvirt.Private }, "auto", "yes", "no"),
	},
	{
		name: "accelerator", flag: "accelerator", usage: "how guests run: auto, kvm or tcg",
		value: word(func(c *Config) *string { return &c.Accelerator }, "auto", "kvm", "tcg"),
	},
	{
		name: "image_dirs", flag: "image-dirs", usage: "folders in which a request may name files",
		value: list(func(c *Config) *[]string { return &c.ImageDirs }, absolute),
	},
	{
		name: "master_key", flag: "master-key", usage: "file with the key of sealed secrets, the same on every node",
		value: text(func(c *Config) *string { return &c.MasterKey }, absolute),
	},
	{
		name: "log.level", flag: "log-level", usage: "least level that is logged: debug, info, warn or error", live: true,
		value: level{},
	},
	{
		name: "log.format", flag: "log-format", usage: "format of the log: text, json, or auto for text on a terminal",
		value: word(func(c *Config) *string { return &c.Log.Format }, "auto", "text", "json"),
	},
	{
		name: "otlp.endpoint", flag: "otlp-endpoint", ambient: "OTEL_EXPORTER_OTLP_ENDPOINT", secret: true,
		usage: "URL of a collector for traces, OTLP over HTTP",
		value: text(func(c *Config) *string { return &c.OTLP.Endpoint }, httpURL),
	},
	{
		name: "otlp.traces", flag: "otlp-traces", ambient: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", secret: true,
		usage: "URL that traces are sent to, in place of v1/traces below --otlp-endpoint",
		value: text(func(c *Config) *string { return &c.OTLP.Traces }, httpURL),
	},
	{
		name: "node.id", flag: "node-id", usage: "UUID of this node, in place of the data dir's own",
		value: nodeID{},
	},
	{
		name: "node.name", flag: "node-name", usage: "label of this node, in place of the host's name",
		value: text(func(c *Config) *string { return &c.Node.Name }, label),
	},
	{
		name: "deadline", flag: "deadline", usage: "how long an operation may keep trying",
		value: deadline{},
	},
}

// find returns the key of a name in the file.
func find(name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// value moves one setting between text and a Config. What a source gives as one text, a list splits at commas.
type value interface {
	set(c *Config, texts []string) error
	show(c *Config) string
	isList() bool
	choices() []string // the few words that it may be; nil where it may be anything
}

type textValue struct {
	field func(*Config) *string
	check func(string) error
	words []string
}

func text(field func(*Config) *string, check func(string) error) value {
	return textValue{field: field, check: check}
}

// word is one of a few.
func word(field func(*Config) *string, words ...string) value {
	return textValue{field: field, check: oneOf(words...), words: words}
}

func (v textValue) isList() bool          { return false }
func (v textValue) choices() []string     { return v.words }
func (v textValue) show(c *Config) string { return *v.field(c) }
func (v textValue) set(c *Config, texts []string) error {
	if v.check != nil {
		if err := v.check(texts[0]); err != nil {
			return err
		}
	}
	*v.field(c) = texts[0]
	return nil
}

type listValue struct {
	field func(*Config) *[]string
	check func(string) error
	words []string
}

func list(field func(*Config) *[]string, check func(string) error) value {
	return listValue{field: field, check: check}
}

func (v listValue) isList() bool          { return true }
func (v listValue) choices() []string     { return v.words }
func (v listValue) show(c *Config) string { return strings.Join(*v.field(c), ",") }
func (v listValue) set(c *Config, texts []string) error {
	if len(texts) == 0 {
		return errors.New("the list is empty; null stands for the default")
	}
	items := make([]string, 0, len(texts))
	for _, text := range texts {
		if err := v.check(text); err != nil {
			return err
		}
		if slices.Contains(items, text) {
			return fmt.Errorf("%q is given twice", text)
		}
		items = append(items, text)
	}
	*v.field(c) = items
	return nil
}

// subset is a list of some of a few.
func subset(field func(*Config) *[]string, words ...string) value {
	return listValue{field: field, check: oneOf(words...), words: words}
}

type level struct{}

var levels = []string{"debug", "info", "warn", "error"}

func (level) isList() bool          { return false }
func (level) choices() []string     { return levels }
func (level) show(c *Config) string { return strings.ToLower(c.Log.Level.String()) }
func (level) set(c *Config, texts []string) error {
	if err := oneOf(levels...)(texts[0]); err != nil {
		return err
	}
	return c.Log.Level.UnmarshalText([]byte(texts[0]))
}

type nodeID struct{}

func (nodeID) isList() bool      { return false }
func (nodeID) choices() []string { return nil }

func (nodeID) show(c *Config) string {
	if c.Node.ID == uuid.Nil {
		return ""
	}
	return c.Node.ID.String()
}

func (nodeID) set(c *Config, texts []string) error {
	id, err := uuid.Parse(texts[0])
	if err != nil || id == uuid.Nil || id.String() != strings.ToLower(texts[0]) {
		return fmt.Errorf("%q is not a UUID, such as the one that a data dir's node.id holds", texts[0])
	}
	c.Node.ID = id
	return nil
}

type deadline struct{}

func (deadline) isList() bool          { return false }
func (deadline) choices() []string     { return nil }
func (deadline) show(c *Config) string { return c.Deadline.String() }
func (deadline) set(c *Config, texts []string) error {
	d, err := time.ParseDuration(texts[0])
	if err != nil || d < time.Second || d > 24*time.Hour {
		return fmt.Errorf("%q is not a duration from 1s to 24h, such as 10m", texts[0])
	}
	c.Deadline = d
	return nil
}

func oneOf(names ...string) func(string) error {
	return func(text string) error {
		if !slices.Contains(names, text) {
			return fmt.Errorf("%q is none of %s", text, strings.Join(names, ", "))
		}
		return nil
	}
}

func address(text string) error {
	if text == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address with a port, such as [::]:8006 or 127.0.0.1:8006", text)
	}
	return nil
}

func httpURL(text string) error {
	if text == "" {
		return nil
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("not a URL such as http://localhost:4318") // which may hold a password
	}
	return nil
}

func absolute(text string) error {
	if !filepath.IsAbs(text) {
		return fmt.Errorf("%q is not an absolute path", text)
	}
	return nil
}

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

func label(text string) error {
	if !labelPattern.MatchString(text) {
		return errors.New("a node's name has up to 63 letters, digits, dots and hyphens, and no hyphen or dot at its ends")
	}
	return nil
}
