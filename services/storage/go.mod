module horcrux/services/storage

go 1.26.0

require horcrux/pkg v0.0.0

replace horcrux/pkg => ../../pkg
