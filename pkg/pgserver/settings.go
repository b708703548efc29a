package pgserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// settings is postgresql.conf: durable, small, with no process that is not needed. The event store is written by
// short transactions from a few dozen connections, and every transaction that stays open stalls its readers.
const settings = `# Written by horcrux at every start. Your own settings go to local.conf beside this file; they win.

listen_addresses = ''
port = %[1]s
unix_socket_directories = '%[2]s'
unix_socket_permissions = 0700
max_connections = %[3]d
superuser_reserved_connections = 3
max_prepared_transactions = 0

# A transaction that nobody ends would hold back every reader of the log.
idle_in_transaction_session_timeout = '30s'
statement_timeout = '5min'
lock_timeout = '30s'

fsync = %[4]s
synchronous_commit = %[4]s
full_page_writes = %[4]s
wal_level = replica
max_wal_senders = 2
max_replication_slots = 2
min_wal_size = '32MB'
max_wal_size = '256MB'
checkpoint_timeout = '10min'

shared_buffers = '24MB'
work_mem = '4MB'
maintenance_work_mem = '32MB'
temp_buffers = '1MB'
huge_pages = off
jit = off
max_worker_processes = 0
max_parallel_workers = 0
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
max_logical_replication_workers = 0
autovacuum_max_workers = 1

log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%%m [%%p] '
log_timezone = 'UTC'
timezone = 'UTC'
log_checkpoints = off
# An error of a statement goes to its client, who handles it; a statement's text may hold what no log should.
log_min_messages = log
log_min_error_statement = panic
log_autovacuum_min_duration = -1
`

// configure writes the configuration files of the server.
func (c *cluster) configure() error {
	on := "on"
	if c.Volatile {
		on = "off"
	}
	connections := c.MaxConnections
	if connections == 0 {
		connections = 50
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, settings, port, quote(c.socketDir), connections, on)
	if c.bin.major >= 18 {
		conf.WriteString("io_method = sync\n") // no I/O worker processes
	}
	fmt.Fprintf(&conf, "\nhba_file = '%s'\nident_file = '%s'\n",
		quote(filepath.Join(c.dir, "pg_hba.conf")), quote(filepath.Join(c.dir, "pg_ident.conf")))
	fmt.Fprintf(&conf, "include_if_exists '%s'\n", quote(filepath.Join(c.dir, "local.conf")))

	var ident strings.Builder
	for _, user := range c.clientUsers() {
		fmt.Fprintf(&ident, "horcrux %q %s\n", user, role)
	}
	for name, text := range map[string]string{
		"postgresql.conf": conf.String(),
		"pg_hba.conf":     "local all " + role + " peer map=horcrux\n",
		"pg_ident.conf":   ident.String(),
	} {
		if err := replaceFile(filepath.Join(c.dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

// quote makes a value safe between single quotes of postgresql.conf.
func quote(s string) string {
	return strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(s)
}

// replaceFile writes a file that its readers see whole or not at all. The server reads it again at a crash of its own,
// and may run as another user.
func replaceFile(path, text string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o644); err != nil { // past the umask
		return err
	}
	return os.Rename(tmp, path)
}
