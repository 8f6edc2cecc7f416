/// Logarithm, exponential, sine and cosine from additions, multiplications and divisions only.
///
/// The C library's own vary in their last bit between versions, and with the processor (variants with and without fused
/// multiply-add); noise computed by two workers would then differ now and then in a bit, and with it the image. IEEE
/// 754 fixes the results here. Errors stay below 4 units in the last place of a double, far below what survives
/// rounding to fp32.
package enum PortableMath {
  /// The natural logarithm of a finite positive number.
  package static func log(_ x: Double) -> Double {
    var exponent = Int(x.exponent)
    var fraction = x.significand
    if fraction > 1.4142135623730951 {
      fraction /= 2
      exponent += 1
    }
    // log m = 2 artanh((m − 1) / (m + 1)); the ratio is below 0.172, so the series is cut off below 1e-19.
    let ratio = (fraction - 1) / (fraction + 1)
    let square = ratio * ratio
    var series = 0.0
    for k in stride(from: 21, through: 3, by: -2) { series = (series + 1 / Double(k)) * square }
    // The upper part of ln 2 has zeros enough that its product with the exponent is exact.
    return Double(exponent) * 0x1.62e42feep-1
      + (Double(exponent) * 0x1.a39ef35793c76p-33 + (2 * ratio * series + 2 * ratio))
  }

  /// e to the power of a number that is neither infinite nor NaN; 0 and infinity beyond what a double holds.
  package static func exp(_ x: Double) -> Double {
    guard abs(x) < 745 else { return x < 0 ? 0 : .infinity }
    let exponent = (x * 0x1.71547652b82fep0).rounded()
    // The upper part of ln 2 has zeros enough that its product with the exponent is exact.
    let reduced = (x - exponent * 0x1.62e42feep-1) - exponent * 0x1.a39ef35793c76p-33
    // |reduced| ≤ ln 2 / 2, so the series is cut off below 1e-18.
    var series = 1.0
    for k in stride(from: 14, through: 1, by: -1) { series = 1 + series * reduced / Double(k) }
    return Double(sign: .plus, exponent: Int(exponent), significand: series)
  }

  /// A positive number to a power.
  package static func pow(_ x: Double, _ power: Double) -> Double { exp(power * log(x)) }

  /// Sine and cosine of an angle in 0…2π.
  package static func sinCos(_ angle: Double) -> (sin: Double, cos: Double) {
    let quadrant = (angle * 0x1.45f306dc9c883p-1).rounded()
    // π/2 in two parts; the product of the first, 33 bits long, with the quadrant is exact.
    let reduced = (angle - quadrant * 0x1.921fb544p0) - quadrant * 0x1.0b4611a626331p-34
    let square = reduced * reduced
    var sine = 0.0
    for k in stride(from: 17, through: 3, by: -2) { sine = (1 - sine) * square / Double(k * (k - 1)) }
    var cosine = 0.0
    for k in stride(from: 18, through: 2, by: -2) { cosine = (1 - cosine) * square / Double(k * (k - 1)) }
    let sin = reduced - reduced * sine
    let cos = 1 - cosine
    switch Int(quadrant) & 3 {
    case 0: return (sin, cos)
    case 1: return (cos, -sin)
    case 2: return (-sin, -cos)
    default: return (-cos, sin)
    }
  }
}
