//go:build no_ssl

package build

const ssl = false
