// Package submit makes operations of requests: what was asked is recorded together with the command to the service
// that owns the object, the command is published, and what the service decided is the answer. Nothing in it knows a
// kind of object.
package submit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/crashpoint"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/pkg/trace"
	"horcrux/services/api/access"
	"horcrux/services/api/past"
	"horcrux/services/api/readmodel"
)

// Bus is what a Submitter needs of the bus.
type Bus interface {
	// Ask publishes a command that is recorded and waits for its decision. Any error means that there is none yet.
	Ask(ctx context.Context, cmd events.Command) (bus.Decision, error)
	// Ending returns a channel that gets the events of an operation, or none, when it has ended, unless the message
	// is lost.
	Ending(operation uuid.UUID) (ended <-chan []events.Event, stop func())
	// LastEnd is the position of the last end of an operation that anybody told.
	LastEnd() events.Position
}

// Options of a Submitter. All are needed but the last three.
type Options struct {
	Store eventstore.Store
	Bus   Bus
	Model *readmodel.Model
	Log   *slog.Logger

	Clock    func() time.Time // nil: time.Now
	Patience time.Duration    // for a decision; 0: 2 s
	Deadline time.Duration    // of an operation; 0: 10 min
}

// Submitter makes operations.
type Submitter struct {
	Options
	draining context.Context // ended by Drain
	drain    context.CancelFunc

	mu   sync.Mutex
	told events.Position
}

// New returns a Submitter.
func New(o Options) *Submitter {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	if o.Deadline == 0 {
		o.Deadline = 10 * time.Minute
	}
	s := &Submitter{Options: o}
	s.draining, s.drain = context.WithCancel(context.Background())
	return s
}

// Drain ends all waiting for the end of operations, now and later: who waits gets the operation as it is.
func (s *Submitter) Drain() { s.drain() }

// Request is what all mutating calls have in common.
type Request struct {
	Caller      access.Caller
	Reason      string
	Traceparent string
	Key         string        // Idempotency-Key, "" for none
	Digest      []byte        // of method, path, query without wait, and body; compared under a key
	Wait        time.Duration // for the end of the operation
}

// Intent is what a call wants done.
type Intent struct {
	Resource   *events.Resource
	Collection string // path below /api of the collection that the object is in
	Target     uuid.UUID
	Node       string // of the object; events.AnyNode when it has none yet
	Type       string // of the command: "vm.start"
	Data       any    // of the command, nil for none
	IfVersion  *int64
	Takes      time.Duration // what it may take besides the time that every operation has
}

// Operation is what became of a call.
type Operation struct {
	ID       uuid.UUID
	Doc      json.RawMessage // as the API returns it
	Position events.Position // how far the log is known to the answer
}

// Told is the last position that an answer of this gateway, or the end of an operation, has told. Who was told of
// something may ask for it next, and the read model can be a moment behind.
func (s *Submitter) Told() events.Position {
	ended := s.Bus.LastEnd()
	s.mu.Lock()
	defer s.mu.Unlock()
	if ended.Compare(s.told) > 0 {
		return ended
	}
	return s.told
}

// Tell says that somebody was told of a position, or may have been by an earlier process.
func (s *Submitter) Tell(pos events.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos.Compare(s.told) > 0 {
		s.told = pos
	}
}

func (s *Submitter) tell(op Operation, err error) (Operation, error) {
	if err == nil {
		s.Tell(op.Position)
	}
	return op, err
}

// Do makes an operation of an intent, and answers once it is decided or, with Wait, has ended. A rejection is returned
// as the service's problem. intend is called only if the call has to be made: a repeat under a key returns the
// operation that the first call became.
func (s *Submitter) Do(ctx context.Context, r Request, intend func(context.Context) (Intent, error)) (Operation, error) {
	return s.tell(s.do(ctx, r, intend))
}

func (s *Submitter) do(ctx context.Context, r Request, intend func(context.Context) (Intent, error)) (Operation, error) {
	if r.Key == "" {
		return s.first(ctx, r, nil, intend)
	}
	for key, i := r.Key, 0; i < maxAttempts; i++ {
		known, err := s.Store.Request(ctx, r.Caller.Actor, key)
		if err != nil {
			return Operation{}, err
		}
		if known == nil {
			op, err := s.first(ctx, r, &eventstore.Idempotency{Actor: r.Caller.Actor, Key: key, Request: r.Digest}, intend)
			if errors.Is(err, eventstore.ErrKeyTaken) { // by the same call, a moment ago
				continue
			}
			return op, err
		}
		if !bytes.Equal(known.Request, r.Digest) {
			return Operation{}, keyReused(r.Key)
		}
		op, kept, err := s.repeat(ctx, r, known.Operation)
		if kept {
			return op, err
		}
		// The service could not decide then; this is a new attempt, under a key that follows from the failed one.
		key = events.DerivedID("key", r.Key, known.Operation).String()
	}
	return Operation{}, problem.New(problem.TooManyRequests, "too many attempts under the Idempotency-Key %q", r.Key)
}

// maxAttempts bounds how often a call is tried again under one key after answers of 5xx.
const maxAttempts = 100

func keyReused(key string) error {
	return problem.New(problem.IdempotencyKeyReused, "the Idempotency-Key %q was used for another request", key)
}

// repeat answers with the operation that the first call became. kept is false when that was rejected for a reason
// that is nobody's fault, which is not remembered.
func (s *Submitter) repeat(ctx context.Context, r Request, id uuid.UUID) (op Operation, kept bool, err error) {
	outcome, err := s.Store.Outcome(ctx, commandOf(id))
	switch {
	case err != nil:
		return Operation{}, true, err
	case outcome == nil:
		p := problem.New(problem.IdempotencyInProgress, "the first request with this key is not decided yet")
		p.Operation = id.String()
		return Operation{}, true, p
	case outcome.Rejection != nil:
		return Operation{}, outcome.Rejection.Code.Status() < 500, s.rejected(outcome, id)
	}
	op, err = s.answer(ctx, id, outcome.Position, r.Wait)
	return op, true, err
}

// commandOf is the id of the command that an operation begins with.
func commandOf(op uuid.UUID) uuid.UUID { return events.DerivedID("command", op) }

// first records the operation with its command and asks for the decision.
func (s *Submitter) first(ctx context.Context, r Request, key *eventstore.Idempotency, intend func(context.Context) (Intent, error)) (Operation, error) {
	want, err := intend(ctx)
	if err != nil {
		return Operation{}, err
	}
	var data json.RawMessage
	if want.Data != nil {
		if data, err = json.Marshal(want.Data); err != nil {
			return Operation{}, fmt.Errorf("data of %s: %w", want.Type, err)
		}
	}
	id := events.NewID()
	ctx = trace.Operation(ctx, id)
	meta := events.Meta{
		Actor: r.Caller.Actor, Auth: r.Caller.Auth, Reason: r.Reason, Correlation: id, Operation: id, Traceparent: r.Traceparent,
	}
	cmd := events.Command{
		ID: commandOf(id), To: events.Address{Domain: want.Resource.Domain, Node: want.Node}, Type: want.Type,
		Target: want.Target, Data: data, Meta: meta, Deadline: s.Clock().Add(s.Deadline + want.Takes).UTC(), IfVersion: want.IfVersion,
	}
	requested := operation.Requested{
		Type: want.Type, Command: cmd.ID, Resource: cmd.Stream(), Collection: want.Collection, Data: data, Deadline: cmd.Deadline,
	}
	a := eventstore.Append{
		Streams: []eventstore.StreamAppend{{
			Stream: events.NewStream(operation.Kind, id), Events: []events.Draft{operation.Codec.Encode(requested)},
		}},
		Meta: meta, Send: []events.Command{cmd},
		MoreFollows: true, // the decision
	}
	if key != nil {
		key.Operation = id
		a.Idempotency = key
	}
	end := s.watch(id)
	defer end.close()
	recorded, err := s.Store.Append(ctx, a)
	if err != nil {
		return Operation{}, fmt.Errorf("record operation: %w", err)
	}
	crashpoint.Reach(crashpoint.Recorded, want.Type)
	if len(data) <= tellUpTo {
		cmd.Requested = &events.Chained{Event: recorded.Events[0], Hash: recorded.Events[0].Hash}
	}
	decision, err := s.ask(ctx, cmd)
	switch {
	case err != nil:
		return Operation{}, err
	case decision == nil:
		return s.answer(ctx, id, recorded.Outcome.Position, r.Wait)
	case decision.Rejection != nil:
		return Operation{}, s.rejected(decision, id)
	}
	if r.Wait > 0 {
		return s.ended(ctx, end, true, r.Wait)
	}
	return s.answer(ctx, id, decision.Position, r.Wait)
}

// tellUpTo is how large a command's data may be, in bytes, for the command to carry the event that holds them again.
const tellUpTo = 16 << 10

// ask returns what was decided, nil if that is not known in time: the command is recorded and will be decided.
func (s *Submitter) ask(ctx context.Context, cmd events.Command) (*eventstore.Outcome, error) {
	patient, cancel := context.WithTimeout(ctx, s.Patience)
	defer cancel()
	d, err := s.Bus.Ask(patient, cmd)
	if err == nil {
		return &eventstore.Outcome{Position: d.Position, Rejection: d.Rejection}, nil
	}
	if !errors.Is(err, bus.ErrNoDecision) {
		s.Log.WarnContext(ctx, "publishing a command failed; it will be swept", "command", cmd.ID, "type", cmd.Type, "error", err)
	}
	return s.Store.Outcome(ctx, cmd.ID)
}

// rejected is a service's "no" to an operation, which the problem names unless another stands in the way.
func (s *Submitter) rejected(o *eventstore.Outcome, id uuid.UUID) error {
	s.Tell(o.Position) // the caller may look at the operation
	q := *o.Rejection
	if q.Operation == "" {
		q.Operation = id.String()
	}
	return &q
}

// answer is an operation that was accepted: as it is now, or as it ended.
func (s *Submitter) answer(ctx context.Context, id uuid.UUID, known events.Position, wait time.Duration) (Operation, error) {
	if wait == 0 {
		op, _, err := s.look(ctx, id)
		if op.Position.Compare(known) < 0 {
			op.Position = known
		}
		return op, err
	}
	return s.Ended(ctx, id, wait)
}

// Ended waits for the end of an operation. When the time has run out it is the operation as it is.
func (s *Submitter) Ended(ctx context.Context, id uuid.UUID, wait time.Duration) (Operation, error) {
	end := s.watch(id)
	defer end.close()
	return s.tell(s.ended(ctx, end, false, wait))
}

// end is a look-out for the end of an operation: whoever ends it tells, and should that be lost the read model knows a
// moment later.
type end struct {
	id      uuid.UUID
	told    <-chan []events.Event
	watch   *readmodel.Watch
	changed <-chan struct{} // by the first change since the look-out began
	close   func()
}

func (s *Submitter) watch(id uuid.UUID) *end {
	told, stop := s.Bus.Ending(id)
	w := s.Model.Watch(id)
	return &end{id, told, w, w.Changed(), func() { w.Close(); stop() }}
}

// ended waits for an end; fresh says that the look-out is older than the operation.
func (s *Submitter) ended(ctx context.Context, end *end, fresh bool, wait time.Duration) (Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	for changed := end.changed; ; fresh, changed = false, end.watch.Changed() {
		if !fresh {
			op, ended, err := s.look(ctx, end.id)
			if err != nil || ended {
				return op, err
			}
		}
		select {
		case recorded := <-end.told:
			if op, ended, err := fold(end.id, recorded); ended || err != nil {
				return op, err
			}
		case <-changed:
		case <-ctx.Done():
			op, _, err := s.look(ctx, end.id)
			return op, err
		}
	}
}

// look folds an operation from its events, also when ctx has ended.
func (s *Submitter) look(ctx context.Context, id uuid.UUID) (op Operation, ended bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	h, err := s.Store.Load(ctx, events.NewStream(operation.Kind, id))
	if err != nil {
		return Operation{}, false, err
	}
	return fold(id, h[0].Events)
}

// fold makes an operation of its events; Doc is nil where there are none.
func fold(id uuid.UUID, recorded []events.Event) (op Operation, ended bool, err error) {
	o, err := past.Fold(Operations, id, recorded, past.Point{})
	if err != nil || o.Doc == nil {
		return Operation{ID: id}, false, err
	}
	var v operation.View
	if err := json.Unmarshal(o.Doc, &v); err != nil {
		return Operation{}, false, err
	}
	return Operation{ID: id, Doc: o.Doc, Position: recorded[len(recorded)-1].Position}, v.State.Ended(), nil
}

// lookTime bounds the look at an operation whose caller no longer waits.
const lookTime = 5 * time.Second
