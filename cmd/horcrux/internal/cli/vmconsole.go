package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"horcrux/pkg/client"
)

// leaveKey is Ctrl-], as in virsh console and telnet.
const leaveKey = 0x1d

func (a *app) vmConsole() *cobra.Command {
	var readOnly bool
	cmd := a.leaf("console VM", "Open the serial console of a virtual machine; Ctrl-] leaves it", func(ctx context.Context, s *session, args []string) error {
		c, err := s.OpenSerial(ctx, args[0], readOnly)
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Fprintf(s.cmd.ErrOrStderr(), "Connected to %s; Ctrl-] leaves.\r\n", printable(args[0]))
		return s.attach(ctx, c)
	})
	cmd.Long = `Open the serial console of a virtual machine. Ctrl-] leaves it.

It begins with the last of what was said before. Several may look at once, and virsh console too; what one types, all see.
The end of the input, where that is no terminal, leaves the console open for what the guest still says.`
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "only watch")
	return cmd
}

func (a *app) vmLog() *cobra.Command {
	cmd := a.leaf("log VM", "Print the end of what a virtual machine said on its serial console", func(ctx context.Context, s *session, args []string) error {
		resp, err := s.GetVMSerialLog(ctx, args[0], nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(s.out, resp.Body)
		return errors.Join(err, resp.Body.Close())
	})
	cmd.Long = `Print the end of what a virtual machine said on its serial console, at most 1 MiB, as it is. It is there also when the
guest has stopped or died.`
	return cmd
}

// attach joins a console with the terminal until the user leaves, the guest stops or ctx ends.
func (s *session) attach(ctx context.Context, c *client.Console) error {
	in, restore, err := keyboard(s.cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer restore()
	shown, left := make(chan error, 1), make(chan error, 1)
	go func() { // ends with the console, which the caller closes
		_, err := io.Copy(s.out, c)
		shown <- err
	}()
	go func() { // ends with the input: restore closes a terminal, and with anything else the process ends
		if err := typing(in, c); err != nil {
			left <- err
		}
	}()
	select {
	case err := <-shown:
		var end *client.ConsoleEnd
		if errors.As(err, &end) && end.Orderly {
			fmt.Fprintf(s.cmd.ErrOrStderr(), "\r\n%s.\r\n", printable(end.Reason))
			return nil
		}
		return err
	case err := <-left:
		if errors.Is(err, errLeft) {
			fmt.Fprint(s.cmd.ErrOrStderr(), "\r\n")
			return nil
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keyboard is what is typed, key by key where it comes from a terminal; restore gives that back as it was.
func keyboard(in io.Reader) (keys io.Reader, restore func(), err error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return in, func() {}, nil
	}
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	giveBack := func() { _ = term.Restore(int(f.Fd()), before) } // there is nowhere else to say that it failed
	// Opened again, so that closing it wakes who waits for a key, and not blocking is nobody else's affair.
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		giveBack()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	return again, func() { again.Close(); giveBack() }, nil
}

var errLeft = errors.New("left by the user")

// typing sends what is typed, up to the key that leaves. nil says that there is nothing more to type.
func typing(in io.Reader, c io.Writer) error {
	b := make([]byte, 4<<10)
	for {
		n, err := in.Read(b)
		keys, _, leaves := bytes.Cut(b[:n], []byte{leaveKey})
		if len(keys) > 0 {
			if _, err := c.Write(keys); err != nil {
				return nil //nolint:nilerr // whoever shows says how it ended
			}
		}
		switch {
		case leaves:
			return errLeft
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
