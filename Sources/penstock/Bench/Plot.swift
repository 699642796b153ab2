// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Lines over one another in one picture, as SVG.
struct Plot {
  struct Line {
    var name: String
    var color: String
    var points: [(x: Double, y: Double)]
  }

  var title: String
  /// What the axes count.
  var x: String
  var y: String
  var hasLogarithmicX = false
  var lines: [Line]

  private static let width = 640.0
  private static let height = 320.0
  private static let margin = (left: 64.0, right: 16.0, top: 40.0, bottom: 48.0)

  func write(to path: String) throws {
    try Data(svg.utf8).write(to: URL(fileURLWithPath: path))
  }

  var svg: String {
    let points = lines.flatMap(\.points)
    let top = Self.roundUp(points.map(\.y).max() ?? 1)
    let xs = points.map { scaled($0.x) }
    let (first, last) = (xs.min() ?? 0, max(xs.max() ?? 1, (xs.min() ?? 0) + 1e-9))
    func place(_ x: Double, _ y: Double) -> (x: Double, y: Double) {
      let across = Self.width - Self.margin.left - Self.margin.right
      let up = Self.height - Self.margin.top - Self.margin.bottom
      return (
        Self.margin.left + (scaled(x) - first) / (last - first) * across,
        Self.height - Self.margin.bottom - y / top * up
      )
    }
    var text = """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Int(Self.width)) \(Int(Self.height))" \
      font-family="sans-serif" font-size="12">
      <rect width="100%" height="100%" fill="white"/>
      <text x="\(Self.margin.left)" y="18" font-size="14">\(title)</text>

      """
    func label(_ at: (x: Double, y: Double), _ anchor: String, _ what: String) {
      text +=
        "<text x=\"\(one(at.x))\" y=\"\(one(at.y))\" text-anchor=\"\(anchor)\">\(what)</text>\n"
    }
    let (left, right) = (xTicks.first ?? 0, xTicks.last ?? 1)
    for step in 0...4 {
      let value = top * Double(step) / 4
      let (from, to) = (place(left, value), place(right, value))
      text += """
        <line x1="\(one(from.x))" x2="\(one(to.x))" y1="\(one(from.y))" y2="\(one(to.y))" \
        stroke="#ddd"/>

        """
      label((from.x - 6, from.y + 4), "end", Self.short(value))
    }
    for tick in xTicks {
      let at = place(tick, 0)
      label((at.x, at.y + 18), "middle", Self.short(tick))
    }
    label((Self.width / 2, Self.height - 10), "middle", x)
    label((Self.margin.left, 34), "start", y)
    for (number, line) in lines.enumerated() {
      let path = line.points.map { place($0.x, $0.y) }.map { "\(one($0.x)),\(one($0.y))" }
      text += """
        <polyline fill="none" stroke="\(line.color)" stroke-width="1.5" \
        points="\(path.joined(separator: " "))"/>
        <text x="\(one(Self.width - Self.margin.right))" y="\(18 + 15 * number)" \
        text-anchor="end" fill="\(line.color)">\(line.name)</text>

        """
    }
    return text + "</svg>\n"
  }

  private func scaled(_ x: Double) -> Double { hasLogarithmicX ? log10(max(x, 1)) : x }

  private func one(_ value: Double) -> String { String(format: "%.1f", value) }

  /// Every power of ten, or five places that are as far from one another.
  private var xTicks: [Double] {
    let all = lines.flatMap(\.points).map(\.x)
    guard let least = all.min(), let most = all.max() else { return [] }
    if hasLogarithmicX {
      return Array(Set(all)).sorted().filter { log10($0).truncatingRemainder(dividingBy: 1) == 0 }
    }
    return (0...5).map { least + (most - least) * Double($0) / 5 }
  }

  /// The next of 1, 2, 4, 5, 8, 10 times a power of ten.
  private static func roundUp(_ value: Double) -> Double {
    guard value > 0 else { return 1 }
    let power = pow(10, floor(log10(value)))
    return ([1, 2, 4, 5, 8].first { Double($0) * power >= value }.map(Double.init) ?? 10) * power
  }

  private static func short(_ value: Double) -> String {
    switch value {
    case 1_000_000...: String(format: "%g M", value / 1_000_000)
    case 10_000...: String(format: "%g k", value / 1000)
    default: String(format: "%g", (value * 10).rounded() / 10)
    }
  }
}
