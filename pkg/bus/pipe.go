package bus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Bounds of a pipe, in bytes: what may be under way in one direction and not consumed, and what one message carries.
const (
	pipeWindow = 256 << 10
	pipeChunk  = 32 << 10
)

// silentBeats is how many signs of life may fail to come before the other end is taken for gone.
const silentBeats = 4

// A message of a pipe is a byte that says what it is, a number in eight bytes, and what belongs to it.
const (
	frameData   = 'd' // how many bytes were sent before; the bytes
	frameCredit = 'c' // how many bytes were consumed so far; as often as a sign of life is due, also without news
	frameEnd    = 'e' // how many bytes were sent in all; a problem as JSON, or nothing for an end in order
	frameHeader = 1 + 8
)

// smallChunk is the size, in bytes, below which what is received is put together: a chunk is to cost no more than what is
// in it.
const smallChunk = 4 << 10

// ErrPipeClosed: this end of the pipe was closed here.
var ErrPipeClosed = errors.New("the pipe is closed")

// Pipe is one end of a stream of bytes in both directions. Bytes arrive once, in order and all of them, or the pipe
// breaks: core NATS promises none of it, so messages are counted. The sender stops when the receiver has not consumed
// pipeWindow bytes, which bounds the memory of both, however long somebody does not read. One goroutine may read while
// another writes.
type Pipe struct {
	bus   *Bus
	peer  string // subject on which the other end listens
	sub   *nats.Subscription
	beats sync.WaitGroup
	done  chan struct{} // closed by the first end, ours or theirs

	writing sync.Mutex
	message []byte

	mu       sync.Mutex
	moved    *sync.Cond
	chunks   [][]byte // received, not consumed
	received uint64
	consumed uint64
	granted  uint64 // what the other end was last told of consumed
	sent     uint64
	credit   uint64 // what the other end told that it has consumed
	heard    time.Time
	ended    bool
	failure  error // of writes once ended, and of reads once everything is consumed
}

// OpenPipe makes the end of a session that asks for it: ready to receive when it returns, so that the other end can be
// asked to join.
func (b *Bus) OpenPipe(session uuid.UUID) (*Pipe, error) {
	return b.pipe(events.TTYOut(session), events.TTYIn(session))
}

// JoinPipe makes the other end of a session that somebody has opened.
func (b *Bus) JoinPipe(session uuid.UUID) (*Pipe, error) {
	return b.pipe(events.TTYIn(session), events.TTYOut(session))
}

func (b *Bus) pipe(mine, peer string) (*Pipe, error) {
	p := &Pipe{bus: b, peer: peer, done: make(chan struct{}), heard: time.Now(), message: make([]byte, frameHeader+pipeChunk)}
	p.moved = sync.NewCond(&p.mu)
	var err error
	if p.sub, err = b.nc.Subscribe(mine, p.take); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	if err := b.nc.FlushTimeout(callTime); err != nil { // from here on the server knows where to send
		return nil, errors.Join(fmt.Errorf("pipe: %w", err), p.sub.Unsubscribe())
	}
	p.beats.Go(p.beat)
	return p, nil
}

// Done is closed when either end has closed the pipe, or it broke. What was received before can still be read.
func (p *Pipe) Done() <-chan struct{} { return p.done }

// Read waits for bytes. After the last of them it fails with io.EOF where the other end closed in order, with the
// problem that it gave, or with unavailable where it is gone.
func (p *Pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	for len(p.chunks) == 0 && !p.ended {
		p.moved.Wait()
	}
	if len(p.chunks) == 0 {
		defer p.mu.Unlock()
		return 0, p.failure
	}
	n := copy(b, p.chunks[0])
	if p.chunks[0] = p.chunks[0][n:]; len(p.chunks[0]) == 0 {
		p.chunks = p.chunks[1:]
	}
	p.consumed += uint64(n)
	grant := p.consumed-p.granted >= pipeWindow/4 && !p.ended
	if grant {
		p.granted = p.consumed
	}
	consumed := p.consumed
	p.mu.Unlock()
	if grant {
		if err := p.send(frame(frameCredit, consumed)); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Write returns when the bytes are on their way, which waits for the other end to consume what was before.
func (p *Pipe) Write(b []byte) (int, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	written := 0
	for written < len(b) {
		n, offset, err := p.reserve(len(b) - written)
		if err != nil {
			return written, err
		}
		p.message[0] = frameData
		binary.BigEndian.PutUint64(p.message[1:], offset)
		copy(p.message[frameHeader:], b[written:written+n])
		if err := p.send(p.message[:frameHeader+n]); err != nil { // it copies
			return written, err
		}
		written += n
	}
	return written, nil
}

// reserve waits for credit and takes some of it.
func (p *Pipe) reserve(want int) (n int, offset uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.sent-p.credit >= pipeWindow && !p.ended {
		p.moved.Wait()
	}
	if p.ended {
		return 0, 0, p.failure
	}
	n = min(want, pipeChunk, int(pipeWindow-(p.sent-p.credit)))
	offset = p.sent
	p.sent += uint64(n)
	return n, offset, nil
}

func (p *Pipe) send(message []byte) error {
	if err := p.bus.nc.Publish(p.peer, message); err != nil {
		err = fmt.Errorf("pipe: %w", err)
		p.end(err)
		return err
	}
	return nil
}

// Close is End without a problem.
func (p *Pipe) Close() error { return p.End(nil) }

// End closes the pipe and tells the other end why; nil is an end in order. What was written before still arrives. A
// second one does nothing.
func (p *Pipe) End(why *problem.Problem) error {
	var errs []error
	if p.end(ErrPipeClosed) {
		errs = append(errs, p.tell(why))
	}
	p.mu.Lock()
	p.chunks, p.failure = nil, ErrPipeClosed
	p.mu.Unlock()
	p.beats.Wait()
	if err := p.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrBadSubscription) {
		errs = append(errs, err)
	}
	for i, err := range errs {
		if errors.Is(err, nats.ErrConnectionClosed) { // there is nobody to tell
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// tell sends the other end that this one has ended.
func (p *Pipe) tell(why *problem.Problem) error {
	p.writing.Lock() // a write under way has its message sent, or fails
	defer p.writing.Unlock()
	message := frame(frameEnd, p.sent)
	if why != nil {
		text, err := json.Marshal(why)
		if err != nil {
			return err
		}
		message = append(message, text...)
	}
	return p.bus.nc.Publish(p.peer, message)
}

func frame(kind byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, number)
}

// end marks the pipe as ended and says whether this was the first to do so.
func (p *Pipe) end(why error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.ended, p.failure = true, why
	close(p.done)
	p.moved.Broadcast()
	return true
}

// take is called with each message, in order.
func (p *Pipe) take(m *nats.Msg) {
	p.mu.Lock()
	p.heard = time.Now()
	p.mu.Unlock()
	if len(m.Data) < frameHeader {
		p.breaks("a message is cut short")
		return
	}
	number, rest := binary.BigEndian.Uint64(m.Data[1:]), m.Data[frameHeader:]
	switch m.Data[0] {
	case frameData:
		p.receive(number, rest)
	case frameCredit:
		p.mu.Lock()
		if number > p.credit && number <= p.sent {
			p.credit = number
			p.moved.Broadcast()
		}
		p.mu.Unlock()
	case frameEnd:
		why := io.EOF
		if len(rest) > 0 {
			var told problem.Problem
			if err := json.Unmarshal(rest, &told); err != nil {
				p.breaks("an end that cannot be read")
				return
			}
			why = &told
		}
		p.mu.Lock()
		whole := number == p.received
		p.mu.Unlock()
		if !whole {
			p.breaks("bytes were lost on the way")
			return
		}
		p.end(why)
	}
}

func (p *Pipe) receive(offset uint64, data []byte) {
	p.mu.Lock()
	fits := offset == p.received && p.received+uint64(len(data))-p.consumed <= pipeWindow
	if fits && !p.ended {
		p.received += uint64(len(data))
		last := len(p.chunks) - 1
		if last >= 0 && len(p.chunks[last])+len(data) <= smallChunk {
			p.chunks[last] = append(p.chunks[last], data...)
		} else if len(data) > 0 {
			p.chunks = append(p.chunks, data)
		}
		p.moved.Broadcast()
	}
	p.mu.Unlock()
	if !fits {
		p.breaks("bytes were lost on the way")
	}
}

// breaks ends the pipe for want of what was promised, and tells the other end.
func (p *Pipe) breaks(how string) {
	why := problem.New(problem.Unavailable, "the connection broke: %s", how)
	if !p.end(why) {
		return
	}
	err := p.tell(why)
	p.bus.Log.Warn("a pipe broke", "subject", p.sub.Subject, "how", how, "err", err)
}

// beat gives signs of life and misses those of the other end.
func (p *Pipe) beat() {
	tick := time.NewTicker(p.bus.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		silent := time.Since(p.heard)
		p.granted = p.consumed
		consumed := p.consumed
		p.mu.Unlock()
		if silent > silentBeats*p.bus.KeepAlive {
			p.breaks("the other end is gone")
			return
		}
		if err := p.send(frame(frameCredit, consumed)); err != nil {
			return
		}
	}
}
