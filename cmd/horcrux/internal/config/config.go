// Package config is what an administrator may set, and where it comes from. For each key the strongest source wins:
//
//	a flag                          --log-level
//	the environment                 HORCRUX_LOG_LEVEL
//	the configuration file          log: {level: …}
//	a variable of the ecosystem     LIBVIRT_DEFAULT_URI, DATABASE_URL, NATS_URL
//	the default
//
// The file is strict: a key that is not known, is given twice or has a value that does not fit is an error that names
// the line. deploy/horcrux.yaml documents every key.
package config

import (
	"log/slog"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// Config is one complete configuration. The zero value is not one: start from Default or Load.
type Config struct {
	// DataDir is the folder of the installation; "" leaves the choice to package datadir.
	DataDir string
	// Listen is the address of the HTTPS listener, host:port; "" has none. Port 0 takes a free one, for tests.
	Listen string
	// Services are the services that run in this process, of Services.
	Services []string
	// Database is the DSN of an existing Postgres; "" runs a private one.
	Database string
	NATS     NATS
	Libvirt  Libvirt
	// Accelerator is "kvm", "tcg", or "auto" to find out by booting a kernel.
	Accelerator string
	// MasterKey is the file with the key of the sealed secrets, the same on every node; "" means <data dir>/master.key.
	MasterKey string
	// ImageDirs are the folders, absolute, in which a request may name files; none means <data dir>/images alone.
	ImageDirs []string
	Log       Log
	OTLP      OTLP
	Node      Node
	// Deadline is how long an operation may keep trying before it fails with deadline_exceeded.
	Deadline time.Duration
}

// NATS says how the broker is reached.
type NATS struct {
	// URL is that of an existing server; "" embeds one.
	URL string
	// Credentials is a file of NATS credentials for URL; "" connects without.
	Credentials string
}

// Libvirt says how the hypervisor is reached.
type Libvirt struct {
	// URI is libvirt's, such as qemu:///system; "" means the private libvirtd where one runs, else qemu:///system.
	URI string
	// Private is "yes" to run a libvirtd of our own, "no" never to, "auto" to do so where none answers and URI is "".
	Private string
}

// Log says what is logged and how.
type Log struct {
	Level slog.Level
	// Format is "text", "json", or "auto" for text on a terminal and JSON elsewhere.
	Format string
}

// OTLP says where traces go.
type OTLP struct {
	// Endpoint is the URL of a collector that speaks OTLP over HTTP; "" has none.
	Endpoint string
	// Traces is where it takes traces; "" is v1/traces below Endpoint.
	Traces string
}

// Node is this host in the installation.
type Node struct {
	// ID is the same for the processes of one host; uuid.Nil takes the data dir's own.
	ID uuid.UUID
	// Name is the node's label; "" takes the host's name.
	Name string
}

// Services are the names that Config.Services may hold.
var Services = []string{"api", "compute", "storage"}

// Default returns the configuration of an installation where nothing is set.
func Default() *Config {
	return &Config{
		Listen:      defaultListen,
		Services:    append([]string(nil), Services...),
		Libvirt:     Libvirt{Private: "auto"},
		Accelerator: "auto",
		Log:         Log{Level: slog.LevelInfo, Format: "auto"},
		Deadline:    10 * time.Minute,
	}
}

// Changes names the keys in which next differs, apart by whether a running process can take the new value. SIGHUP
// applies the live ones and says that the others wait for a restart.
func (c *Config) Changes(next *Config) (live, restart []string) {
	for _, k := range keys {
		switch {
		case k.value.show(c) == k.value.show(next):
		case k.live:
			live = append(live, k.name)
		default:
			restart = append(restart, k.name)
		}
	}
	return live, restart
}

// redact hides a password in a URL, and all of what is not one.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return "(hidden)"
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
