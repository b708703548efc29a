package problem

type Code string

const InvalidValue Code = "invalid_value"
