// Command bench measures Horcrux against what it is built on: the same work done by libvirt's own client, by a bare
// commit, by pgbench, by COPY. Both sides take turns in one run, so that the ratio means something on a machine that
// does other things as well. docs/benchmarks.md says what each measurement does, docs/adr/0014 why it is done so.
//
//	go run ./test/bench [-run append,list] [-size small|full] [-strict] [-out bench/results] [-dir /var/tmp] [-profile dir]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The sizes: small shows that everything works, full gives figures to keep.
const (
	small = "small"
	full  = "full"
)

// measurement is one thing to measure.
type measurement struct {
	name  string
	about string
	run   func(context.Context, *bench, *result) error
}

var measurements = []measurement{
	{"create", "REST create and start of a machine ÷ virsh define and start", create},
	{"control", "REST create on a fake hypervisor, as a multiple of one commit", control},
	{"list", "a page of machines over REST ÷ the bare SQL", list},
	{"append", "append from Go ÷ pgbench calling the same append; batches ÷ single events", appends},
	{"lag", "from an append's commit to the read model", lag},
	{"rebuild", "rebuild of a read model ÷ COPY of the log", rebuild},
	{"console", "a screen of 50 MB/s through node, NATS, gateway and WebSocket ÷ straight from its socket", carried},
	{"stats", "usage of all running machines over REST ÷ virsh domstats", stats},
	{"starts", "parallel starts over REST ÷ xargs -P of virsh start", starts},
	{"resync", "a look at all machines, none of which has changed", resync},
	{"watch", "an event from the gateway to 1,000 watchers ÷ a message through NATS to as many", watch},
	{"idle", "memory of the idle process tree", idle},
	{"ready", "start to ready", ready},
}

// limits bound one measurement of each size.
var limits = map[string]time.Duration{small: 10 * time.Minute, full: 90 * time.Minute}

// bench is one run of the program.
type bench struct {
	size string
	dir  string // below which everything temporary lies
	// profiles is the folder for CPU profiles, "" for none. A process of its own writes <name>-node.pprof.
	profiles string
	log      *slog.Logger
	also     io.Writer // what the processes print, nil for nowhere

	lab    *lab              // started by the first who needs it
	fleets map[string]*fleet // by database
}

// of is n, smaller when the run is.
func (b *bench) of(fullSize, smallSize int) int {
	if b.size == full {
		return fullSize
	}
	return smallSize
}

// postgres is the Postgres that the measurements within this process share.
func (b *bench) postgres(ctx context.Context) (*lab, error) {
	var err error
	if b.lab == nil {
		b.lab, err = openLab(ctx, b.dir, b.log)
	}
	return b.lab, err
}

func (b *bench) close() error {
	if b.lab == nil {
		return nil
	}
	return b.lab.close()
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == nodeCommand {
		os.Exit(nodeMain(os.Args[2:]))
	}
	os.Exit(benchMain())
}

func benchMain() int {
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	only := flag.String("run", strings.Join(names, ","), "measurements, by name")
	size := flag.String("size", full, "full for figures to keep (an hour), small to see that all of it works (two minutes)")
	out := flag.String("out", "bench/results", "folder of the CSV files")
	dir := flag.String("dir", "/var/tmp", "folder for data, on a file system that keeps its word about fsync")
	strict := flag.Bool("strict", false, "exit with 2 when something required was missed")
	profiles := flag.String("profile", "", "folder for CPU profiles, one of each measurement")
	verbose := flag.Bool("v", false, "log what the parts log")
	flag.Usage = usage
	flag.Parse()
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	if limits[*size] == 0 || flag.NArg() > 0 {
		usage()
		return 64
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{
		size: *size, dir: *dir, profiles: *profiles, fleets: map[string]*fleet{},
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
	if *verbose {
		b.also = os.Stderr
	}
	missed, err := b.runAll(ctx, strings.Split(*only, ","), *out)
	if err = errors.Join(err, b.close()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if missed && *strict {
		return 2
	}
	return 0
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go run ./test/bench [flags]")
	flag.PrintDefaults()
	fmt.Fprintln(os.Stderr, "measurements:")
	for _, m := range measurements {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", m.name, m.about)
	}
}

// runAll runs the named measurements. One that fails does not keep the others from running.
func (b *bench) runAll(ctx context.Context, names []string, out string) (missed bool, err error) {
	for _, n := range names {
		if !slices.ContainsFunc(measurements, func(m measurement) bool { return m.name == n }) {
			return false, fmt.Errorf("there is no measurement %q", n)
		}
	}
	var errs []error
	for _, m := range measurements {
		if ctx.Err() != nil || !slices.Contains(names, m.name) {
			continue
		}
		r := &result{name: m.name, begin: time.Now()}
		fmt.Fprintf(os.Stderr, "measuring %s: %s\n", m.name, m.about)
		if err := b.measure(ctx, m, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			continue
		}
		errs = append(errs, r.table(os.Stdout), r.save(out, b.size))
		missed = missed || r.missed()
	}
	return missed, errors.Join(append(errs, ctx.Err())...)
}

func (b *bench) measure(ctx context.Context, m measurement, r *result) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limits[b.size])
	defer cancel()
	if b.profiles != "" {
		stop, err := profile(filepath.Join(b.profiles, m.name+".pprof"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	r.before = look(ctx)
	err = m.run(ctx, b, r)
	r.after = look(ctx)
	return err
}
