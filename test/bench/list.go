package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/events/vm"
	"horcrux/services/api/rest"
)

// pageSize is what a list returns unless it is asked for more or less.
const pageSize = 100

// list compares a page of machines over REST with the bare SQL for the same rows through the same pool, on logs of a
// few and of many events per machine. The pages are those of the whole list, in turn.
func list(ctx context.Context, b *bench, r *result) (err error) {
	vms := b.of(10_000, 500)
	short, err := b.fleet(ctx, vms, 10)
	if err != nil {
		return err
	}
	long, err := b.fleet(ctx, vms, b.of(100, 50))
	if err != nil {
		return err
	}
	if r.fsync, err = fsyncMode(ctx, long.pool); err != nil {
		return err
	}
	few, err := serveFleet(ctx, b, short)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, few.close()) }()
	many, err := serveFleet(ctx, b, long)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, many.close()) }()

	r.series, err = interleave(ctx, b.of(300, 50), b.of(5000, 500),
		side{fmt.Sprintf("REST, %d events each", long.events), ms, many.rest},
		side{fmt.Sprintf("SQL, %d events each", long.events), ms, many.sql},
		side{fmt.Sprintf("REST, %d events each", short.events), ms, few.rest},
		side{fmt.Sprintf("SQL, %d events each", short.events), ms, few.sql},
	)
	if err != nil {
		return err
	}
	manyREST, manySQL, fewREST := r.series[0], r.series[1], r.series[2]
	r.ratios = []ratio{
		atMost("REST ÷ SQL, p95", manyREST.p95()/manySQL.p95(), 1.8, 1.4),
		reported("REST ÷ SQL, p50", manyREST.p50()/manySQL.p50()),
		atMost("REST, many ÷ few events, p50", manyREST.p50()/fewREST.p50(), 1.1, 0),
		reported("REST, many ÷ few events, p95", manyREST.p95()/fewREST.p95()),
	}
	r.note("%d of %d machines in a page, %d pages", pageSize, vms, len(many.pages))
	return nil
}

// served is a fleet behind a gateway in this process, so that both sides have one pool.
type served struct {
	client client
	pool   *pgxpool.Pool
	node   *fakeNode
	cancel context.CancelCauseFunc
	pages  []page
	body   bytes.Buffer // of the last page, so that reading it costs no memory that the server's process has to clean up
}

// page is where a page of the list begins: after the last machine of the page before.
type page struct {
	cursor string
	name   string
	id     uuid.UUID
}

func serveFleet(ctx context.Context, b *bench, f *fleet) (_ *served, err error) {
	dir, err := tempDir(b.dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &served{pool: f.pool, node: &fakeNode{dir: dir, log: b.log, fail: cancel}, cancel: cancel}
	s.node.push(func(context.Context) error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	eventBus, stopBus, err := startBus(ctx, dir, b.log)
	if err != nil {
		return nil, err
	}
	s.node.push(func(context.Context) error { return stopBus() })
	if err := s.node.gateway(ctx, f.pool, f.store, eventBus, map[string]rest.Check{}); err != nil {
		return nil, err
	}
	s.client = newClient(socketIn(dir))
	return s, s.walk(ctx, f.vms)
}

func (s *served) close() error {
	s.client.CloseIdleConnections()
	s.cancel(nil)
	return s.node.stop()
}

// walk notes where the pages begin, and that together they are the whole list.
func (s *served) walk(ctx context.Context, want int) error {
	at, found := page{}, 0
	for {
		s.pages = append(s.pages, at)
		body, err := s.client.get(ctx, at.path())
		if err != nil {
			return err
		}
		var got struct {
			Items []vm.View
			Next  *string
		}
		if err := json.Unmarshal(body, &got); err != nil {
			return err
		}
		found += len(got.Items)
		if got.Next == nil {
			break
		}
		last := got.Items[len(got.Items)-1]
		at = page{cursor: *got.Next, name: last.Name, id: last.ID}
	}
	if found != want {
		return fmt.Errorf("the list has %d machines instead of %d", found, want)
	}
	return nil
}

func (p page) path() string {
	path := fmt.Sprintf("/api/vms?limit=%d", pageSize)
	if p.cursor != "" {
		path += "&cursor=" + url.QueryEscape(p.cursor)
	}
	return path
}

func (s *served) rest(ctx context.Context, turn int) (float64, error) {
	path := s.pages[turn%len(s.pages)].path()
	return millis(func() error { return s.client.into(ctx, &s.body, "GET", path, nil) })
}

// barePage is the list as one would ask Postgres for it by hand.
const barePage = `SELECT doc FROM api.views WHERE gen = (SELECT gen FROM api.projections WHERE kind = 'vm') AND NOT deleted
	AND (name, id) > ($1, $2) ORDER BY name, id LIMIT $3`

func (s *served) sql(ctx context.Context, turn int) (float64, error) {
	p := s.pages[turn%len(s.pages)]
	return millis(func() error {
		rows, err := s.pool.Query(ctx, barePage, p.name, p.id, pageSize)
		if err != nil {
			return err
		}
		defer rows.Close()
		found := 0
		for rows.Next() {
			var doc string
			if err := rows.Scan(&doc); err != nil {
				return err
			}
			found += len(doc)
		}
		if found == 0 && rows.Err() == nil {
			return errors.New("the page is empty")
		}
		return rows.Err()
	})
}
