package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events"
)

// dedupe is the window in which a command's message id is swallowed when it comes again.
const dedupe = 2 * time.Minute

// streams is what Horcrux keeps in JetStream. Sizes are in bytes.
var streams = []jetstream.StreamConfig{
	{
		Name: events.CommandStream, Subjects: []string{events.AllCommands},
		Description: "commands that no service has taken yet; lost ones are published again from the event store",
		Retention:   jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
		// When it is full a publication fails, and the command is swept later. What is older than a day has been
		// swept many times or is decided.
		Discard: jetstream.DiscardNew, MaxBytes: 256 << 20, MaxAge: 24 * time.Hour, Duplicates: dedupe, AllowMsgTTL: true,
	},
	{
		Name: events.EventStream, Subjects: []string{events.AllEvents},
		Description: "the newest recorded events; filled again from the event store when lost",
		Retention:   jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
		// No age: the last message holds the relay's position and must stay, however long nothing happens. The
		// window is short because the expected sequence keeps doubles out, while a wide one would hold every id of a
		// refill in memory and swallow the refill of a purged stream.
		Discard: jetstream.DiscardOld, MaxBytes: 512 << 20, Duplicates: 100 * time.Millisecond, AllowDirect: true,
	},
	{
		Name: events.DeadLetterStream, Subjects: []string{events.AllDeadLetters},
		Description: "commands that no service could handle",
		Retention:   jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
		Discard: jetstream.DiscardOld, MaxBytes: 64 << 20, MaxMsgs: 10_000, MaxAge: 90 * 24 * time.Hour, Duplicates: dedupe,
	},
}

// EnsureStreams makes the streams that are missing and mends what Horcrux needs of those that are there. It leaves what
// an operator may tune (limits, replicas) as it finds it.
func (b *Bus) EnsureStreams(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for _, want := range streams {
		if err := b.ensureStream(ctx, want); err != nil {
			return fmt.Errorf("stream %s: %w", want.Name, err)
		}
	}
	if err := b.ensureKeeper(ctx); err != nil {
		return fmt.Errorf("stream %s: %w", events.CommandStream, err)
	}
	return nil
}

// keeperSubject is of no service's domain.
const keeperSubject = "horcrux.v1.cmd.-.-.-.-.keep"

// ensureKeeper lays a message that nobody consumes into the command stream. Without it each command that leaves the
// queue empty costs the server a file made and a file removed, which takes longer than all the rest of the way.
func (b *Bus) ensureKeeper(ctx context.Context) error {
	s, err := b.js.Stream(ctx, events.CommandStream)
	if err != nil {
		return err
	}
	if _, err := s.GetLastMsgForSubject(ctx, keeperSubject); !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	m := nats.NewMsg(keeperSubject)
	m.Header.Set(jetstream.MsgTTLHeader, "never") // past the stream's age as well
	_, err = b.js.PublishMsg(ctx, m, jetstream.WithExpectStream(events.CommandStream))
	return err
}

// goneTime is how long a stream that vanished is left alone before it is made anew. A stream made while the server still
// deletes its namesake comes up on the old one's files, which then vanish beneath it: it answers no publication any
// more (nats-server 2.15).
const goneTime = 250 * time.Millisecond

// remakeStreams makes streams that vanished under way.
func (b *Bus) remakeStreams(ctx context.Context) error {
	if !pause(ctx, goneTime) {
		return ctx.Err()
	}
	return b.EnsureStreams(ctx)
}

func (b *Bus) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	s, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		b.Log.Info("making a stream", "stream", want.Name)
		if _, err = b.js.CreateStream(ctx, want); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil // another process was faster
		}
		return err
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	if slices.Equal(have.Subjects, want.Subjects) && have.Retention == want.Retention && have.Discard == want.Discard &&
		have.Duplicates == want.Duplicates && have.AllowDirect == want.AllowDirect && have.AllowMsgTTL == want.AllowMsgTTL {
		return nil
	}
	b.Log.Warn("mending a stream", "stream", want.Name)
	have.Subjects, have.Retention, have.Discard = want.Subjects, want.Retention, want.Discard
	have.Duplicates, have.AllowDirect, have.AllowMsgTTL = want.Duplicates, want.AllowDirect, want.AllowMsgTTL
	_, err = b.js.UpdateStream(ctx, have)
	return err
}

// consumer makes or mends the durable consumer of an address.
func (b *Bus) consumer(ctx context.Context, a events.Address) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, err := b.js.CreateOrUpdateConsumer(ctx, events.CommandStream, jetstream.ConsumerConfig{
		Durable:       a.Consumer(),
		FilterSubject: a.CommandFilter(),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       b.AckWait,
		// Past a limit a work queue would keep the message for ever and deliver it to nobody.
		MaxDeliver:    -1,
		MaxAckPending: 4096,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", a.Consumer(), err)
	}
	return c, nil
}
