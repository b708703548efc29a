//go:build !no_qemu

package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// Consoles says where the consoles of a domain are. ErrNotFound.
func (d *Driver) Consoles(ctx context.Context, id uuid.UUID) (hypervisor.Consoles, error) {
	text, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (string, error) { return l.DomainGetXMLDesc(handle(id), 0) })
	if err == nil {
		var c hypervisor.Consoles
		if c, err = consoles(text); err == nil {
			if c.VNC != "" && d.opts.Outside != nil {
				c.VNC = d.opts.Outside(c.VNC)
			}
			return c, nil
		}
	}
	return hypervisor.Consoles{}, fmt.Errorf("consoles of domain %s: %w", id, err)
}

// consoles reads a domain's XML: that of an active one, which has an id, tells the places that libvirt chose.
func consoles(text string) (c hypervisor.Consoles, err error) {
	var domain struct {
		ID       *int `xml:"id,attr"`
		Graphics []struct {
			Type   string `xml:"type,attr"`
			Socket string `xml:"socket,attr"`
			Listen []struct {
				Socket string `xml:"socket,attr"`
			} `xml:"listen"`
		} `xml:"devices>graphics"`
		Serials []struct {
			Source struct {
				Path string `xml:"path,attr"`
			} `xml:"source"`
			Log struct {
				File string `xml:"file,attr"`
			} `xml:"log"`
		} `xml:"devices>serial"`
	}
	if err := xml.Unmarshal([]byte(text), &domain); err != nil {
		return c, fmt.Errorf("domain XML: %w", err)
	}
	c.Active = domain.ID != nil
	if len(domain.Serials) > 0 {
		c.SerialLog = domain.Serials[0].Log.File
	}
	if !c.Active {
		return c, nil
	}
	if len(domain.Serials) > 0 {
		c.Serial = domain.Serials[0].Source.Path
	}
	for _, g := range domain.Graphics {
		if g.Type != "vnc" {
			continue
		}
		if c.VNC = g.Socket; c.VNC == "" && len(g.Listen) > 0 {
			c.VNC = g.Listen[0].Socket
		}
	}
	return c, nil
}
