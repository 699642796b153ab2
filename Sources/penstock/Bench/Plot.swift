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
  var hasLogarithmicY = false
  /// Places of the horizontal axis and what stands there; nil for round numbers.
  var ticks: [(at: Double, label: String)]?
  var lines: [Line]

  private static let width = 640.0
  private static let height = 320.0
  private static let margin = (left: 64.0, right: 24.0, top: 40.0, bottom: 48.0)
  /// More names than stand above the lines stand beside them.
  private static let namesAbove = 3
  private static let besideWidth = 240.0

  func write(to path: String) throws {
    try Data(svg.utf8).write(to: URL(fileURLWithPath: path))
  }

  var svg: String { Self.figure([self]) }

  /// Several pictures, one below the other.
  static func figure(_ panels: [Plot]) -> String {
    let names = panels.map(\.lines.count).max() ?? 0
    let width = Self.width + (names > namesAbove ? besideWidth : 0)
    let height = max(Self.height * Double(panels.count), Double(names) * 15 + 40)
    var text = """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Int(width)) \(Int(height))" \
      font-family="sans-serif" font-size="12">
      <rect width="100%" height="100%" fill="white"/>

      """
    for (place, panel) in panels.enumerated() {
      text += "<g transform=\"translate(0 \(Int(Self.height) * place))\">\n"
      text += panel.content(hasNames: place == 0)
      text += "</g>\n"
    }
    return text + "</svg>\n"
  }

  /// A color for a line among many, far from its neighbors.
  static func color(_ place: Int) -> String {
    "hsl(\(place * 137 % 360) 65% \(place % 2 == 0 ? 40 : 55)%)"
  }

  private func content(hasNames: Bool) -> String {
    let points = lines.flatMap(\.points)
    let (bottom, top) = yRange
    let xs = points.map { scaled($0.x) } + (ticks ?? []).map { scaled($0.at) }
    let (first, last) = (xs.min() ?? 0, max(xs.max() ?? 1, (xs.min() ?? 0) + 1e-9))
    func place(_ x: Double, _ y: Double) -> (x: Double, y: Double) {
      let across = Self.width - Self.margin.left - Self.margin.right
      let up = Self.height - Self.margin.top - Self.margin.bottom
      let part =
        hasLogarithmicY
        ? (log10(max(y, bottom)) - log10(bottom)) / (log10(top) - log10(bottom)) : y / top
      return (
        Self.margin.left + (scaled(x) - first) / (last - first) * across,
        Self.height - Self.margin.bottom - part * up
      )
    }
    var text =
      "<text x=\"\(Self.margin.left)\" y=\"18\" font-size=\"14\">\(Self.escaped(title))</text>\n"
    func label(_ at: (x: Double, y: Double), _ anchor: String, _ what: String) {
      text +=
        "<text x=\"\(one(at.x))\" y=\"\(one(at.y))\" text-anchor=\"\(anchor)\">"
        + "\(Self.escaped(what))</text>\n"
    }
    let (left, right) = (Self.margin.left, Self.width - Self.margin.right)
    for value in yTicks(bottom, top) {
      let at = place(0, value).y
      text += """
        <line x1="\(one(left))" x2="\(one(right))" y1="\(one(at))" y2="\(one(at))" \
        stroke="#ddd"/>

        """
      label((left - 6, at + 4), "end", Self.short(value))
    }
    for tick in ticks ?? xTicks.map({ (at: $0, label: Self.short($0)) }) {
      let at = place(tick.at, bottom)
      label((at.x, at.y + 18), "middle", tick.label)
    }
    label((Self.width / 2, Self.height - 10), "middle", x)
    label((Self.margin.left, 34), "start", y)
    for (number, line) in lines.enumerated() {
      let path = line.points.map { place($0.x, $0.y) }.map { "\(one($0.x)),\(one($0.y))" }
      text += """
        <polyline fill="none" stroke="\(line.color)" stroke-width="1.5" \
        points="\(path.joined(separator: " "))"/>

        """
      guard hasNames else { continue }
      let isBeside = lines.count > Self.namesAbove
      text += """
        <text x="\(one(isBeside ? Self.width : right))" y="\(18 + 15 * number)" \
        text-anchor="\(isBeside ? "start" : "end")" fill="\(line.color)">\
        \(Self.escaped(line.name))</text>

        """
    }
    return text
  }

  private static func escaped(_ text: String) -> String {
    text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
  }

  private func scaled(_ x: Double) -> Double { hasLogarithmicX ? log10(max(x, 1)) : x }

  private func one(_ value: Double) -> String { String(format: "%.1f", value) }

  private var yRange: (bottom: Double, top: Double) {
    let ys = lines.flatMap(\.points).map(\.y)
    guard hasLogarithmicY else { return (0, Self.roundUp(ys.max() ?? 1)) }
    let positive = ys.filter { $0 > 0 }
    let bottom = pow(10, floor(log10(positive.min() ?? 1)))
    return (bottom, max(pow(10, ceil(log10(positive.max() ?? 1))), bottom * 10))
  }

  private func yTicks(_ bottom: Double, _ top: Double) -> [Double] {
    guard hasLogarithmicY else { return (0...4).map { top * Double($0) / 4 } }
    return (0...Int((log10(top) - log10(bottom)).rounded())).map { bottom * pow(10, Double($0)) }
  }

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

  static func short(_ value: Double) -> String {
    switch value {
    case 1_000_000...: String(format: "%g M", value / 1_000_000)
    case 10_000...: String(format: "%g k", value / 1000)
    default: String(format: "%g", (value * 10).rounded() / 10)
    }
  }
}
