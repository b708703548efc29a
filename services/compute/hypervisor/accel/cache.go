package accel

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"horcrux/services/compute/hypervisor"
)

// record is one remembered answer.
type record struct {
	identity
	Accelerator hypervisor.Accelerator `json:"accelerator"`
	Reason      string                 `json:"reason"`
	At          time.Time              `json:"at"`
}

func recall(o Options, key identity) (Result, bool) {
	for _, r := range records(o) {
		if r.identity == key && (r.Accelerator == hypervisor.KVM || r.Accelerator == hypervisor.TCG) {
			return Result{Accelerator: r.Accelerator, Reason: r.Reason, Remembered: true}, true
		}
	}
	return Result{}, false
}

// remember writes an answer down. Failing to is no harm: the next start probes again.
func remember(o Options, key identity, r Result) {
	if o.CacheFile == "" {
		return
	}
	all := slices.DeleteFunc(records(o), func(r record) bool { return r.identity == key })
	all = append(all, record{identity: key, Accelerator: r.Accelerator, Reason: r.Reason, At: time.Now().UTC()})
	if err := write(o.CacheFile, all); err != nil {
		o.Logger.Warn("the accelerator found is not remembered", "error", err)
	}
}

func records(o Options) []record {
	if o.CacheFile == "" {
		return nil
	}
	text, err := os.ReadFile(o.CacheFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []record
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		o.Logger.Warn("the accelerator remembered is not readable: probing again", "error", err)
		return nil
	}
	return all
}

func write(path string, all []record) error {
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not there any more when all went well
	if _, err := f.Write(append(text, '\n')); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
