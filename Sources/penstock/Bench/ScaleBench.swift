// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench scale`: whether an operation costs more where there is more.
struct ScaleBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scale",
    abstract: "Measure sends, receives and deletes against how much there is.",
    discussion: """
      A store is open for each point of a curve, and they take turns: a round of the one, a round \
      of the next. A ratio is of a point and the first one in rounds that followed each other, so \
      what the machine and the device do meanwhile falls out of it. With written, calls are \
      batches of 100 and show the engine's own cost; with synced they are single, each awaited.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, parsing: .upToNextOption, help: "What grows; everything by default.")
  var curve = ScaleCurve.allCases

  @Option(name: .long, help: "Leave out points above this.")
  var most = 1_000_000

  @Option(name: .long, help: "written shows the engine's own cost, synced that of the disk, too.")
  var durability = BenchDurability.written

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 100

  @Option(name: .long, help: "Rounds of each point.")
  var rounds = 31

  @Option(name: .long, help: "Draw each curve to scale-NAME.svg in this directory.")
  var plots: String?

  func validate() throws {
    guard (1...10_000_000).contains(most) else {
      throw ValidationError("--most must be from 1 to 10000000.")
    }
    if let short = curve.first(where: { $0.points.count { $0 <= most } < 2 }) {
      throw ValidationError("--most leaves fewer than two points of \(short.rawValue).")
    }
    guard (1...65_536).contains(body) else {
      throw ValidationError("--body must be from 1 to 65536 bytes.")
    }
    guard (1...1000).contains(rounds) else {
      throw ValidationError("--rounds must be from 1 to 1000.")
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine      \(Machine.description)")
    print("file system  \(Machine.fileSystem(of: root))")
    print(
      "durability   \(durability.rawValue); body \(body) bytes, "
        + "\(batch == 1 ? "single calls" : "batches of \(batch)"), \(rounds) rounds in turns")
    print("")
    print(
      pad("curve", 24) + lead("at", 9) + "  " + pad("call", 9) + lead("us", 10)
        + lead("ratio", 8) + lead("quartiles", 16))
    for curve in curve { try await measure(curve, in: root) }
    print("")
    print(
      """
      "us" are microseconds per message: of each round the median of its calls, of those the
      median; with producers, of the moment over all that they sent. "ratio" is the median of the
      point over the first one in one round, and its first and third quartile.
      """)
  }

  private var batch: Int { durability == .synced ? 1 : 100 }

  private func measure(_ curve: ScaleCurve, in root: String) async throws {
    let points = curve.points.filter { $0 <= most }
    var queues: [ScaledQueue] = []
    for point in points {
      ProgressLine.tell("\(curve.title): filling \(point) …")
      queues.append(
        try await ScaledQueue(curve, point, durability.value, body, batch, "\(root)/\(point)"))
    }
    var all: [[ScaledQueue.Times]] = points.map { _ in [] }
    for round in 0...rounds {
      ProgressLine.tell("\(curve.title): round \(round) of \(rounds) …")
      // Each comes first in turns; the first round warms up.
      for turn in points.indices {
        let place = (turn + round) % points.count
        let times = try await queues[place].round()
        if round > 0 { all[place].append(times) }
      }
    }
    ProgressLine.end()
    for (queue, point) in zip(queues, points) {
      try await queue.close()
      removeTree("\(root)/\(point)")
    }
    show(curve, points, all)
    if let plots { try draw(curve, points, all, to: "\(plots)/scale-\(curve.rawValue).svg") }
  }

  private static func calls(
    of curve: ScaleCurve
  ) -> [(name: String, part: (ScaledQueue.Times) -> Double)] {
    let all: [(name: String, part: (ScaledQueue.Times) -> Double)] = [
      ("send", { $0.send }), ("receive", { $0.receive }), ("delete", { $0.delete }),
    ]
    return curve == .producers ? [all[0]] : all
  }

  private static func ratios(
    _ times: [ScaledQueue.Times], _ first: [ScaledQueue.Times],
    _ part: (ScaledQueue.Times) -> Double
  ) -> Spread { Spread(zip(times, first).map { part($0) / part($1) }) }

  private func show(_ curve: ScaleCurve, _ points: [Int], _ all: [[ScaledQueue.Times]]) {
    for call in Self.calls(of: curve) {
      for (point, times) in zip(points, all) {
        let ratio = Self.ratios(times, all[0], call.part)
        print(
          pad(curve.title, 24) + lead("\(point)", 9) + "  " + pad(call.name, 9)
            + lead(hundredths(Spread(times.map(call.part)).median), 10)
            + lead(hundredths(ratio.median), 8)
            + lead("\(hundredths(ratio.first)) to \(hundredths(ratio.third))", 16))
      }
    }
    // Each curve is there as soon as it is measured, also in a file.
    fflush(nil)
  }

  private func draw(
    _ curve: ScaleCurve, _ points: [Int], _ all: [[ScaledQueue.Times]], to path: String
  ) throws {
    let colors = ["#c33", "#226", "#393"]
    func lines(_ value: (Int, (ScaledQueue.Times) -> Double) -> Double) -> [Plot.Line] {
      zip(Self.calls(of: curve), colors).map { call, color in
        Plot.Line(
          name: call.name, color: color,
          points: points.indices.map { (Double(points[$0]), value($0, call.part)) })
      }
    }
    let ticks = points.map { (at: Double($0), label: Plot.short(Double($0))) }
    let panels = [
      Plot(
        title: "\(durability.rawValue), bodies of \(body) bytes", x: curve.title,
        y: "us per message", hasLogarithmicX: true, ticks: ticks,
        lines: lines { Spread(all[$0].map($1)).median }),
      Plot(
        title: "", x: curve.title, y: "ratio to \(points[0])", hasLogarithmicX: true, ticks: ticks,
        lines: lines { Self.ratios(all[$0], all[0], $1).median }),
    ]
    try Data(Plot.figure(panels).utf8).write(to: URL(fileURLWithPath: path))
  }
}
