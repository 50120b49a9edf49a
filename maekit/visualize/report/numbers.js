"use strict";
// How numbers are written, by the curves and by the pictures.

// A whole number with its thousands marked.
const grouped = (whole) => String(whole).replace(/\B(?=(\d{3})+$)/g, ",");

// So many significant digits, with an exponent where zeros would be many.
function plain(value, digits) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(digits - 2).replace(/\.?0*e\+?/, "e");
  }
  return String(Number(value.toPrecision(digits)));
}

