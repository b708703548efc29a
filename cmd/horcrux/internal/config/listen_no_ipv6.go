//go:build no_ipv6

package config

const defaultListen = "0.0.0.0:8006"
