// SPDX-License-Identifier: Apache-2.0

/// The median and the quartiles of some values.
struct Spread {
  private let values: [Double]

  init(_ values: [Double]) { self.values = values.sorted() }

  func at(_ fraction: Double) -> Double {
    values.isEmpty ? 0 : values[min(values.count - 1, Int(Double(values.count) * fraction))]
  }
  var first: Double { at(0.25) }
  var median: Double { at(0.5) }
  var third: Double { at(0.75) }
}
