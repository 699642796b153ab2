// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What the systems did, as a table, as lines of JSON and as a plot.
struct PeersReport {
  private struct Key: Hashable {
    var system: String
    var work: PeerWork
  }

  let body: Int
  let seconds: Double
  let rounds: Int
  /// Requests of a run, where they were counted.
  let count: Int?
  private let systems: [any PeerSystem]
  private let syncs: [String: String]
  private var runs: [Key: [Measurement]] = [:]
  private var failures: [Key: String] = [:]
  private var json: FileHandle?

  init(
    body: Int, seconds: Double, rounds: Int, count: Int?, systems: [any PeerSystem],
    syncs: [String]
  ) {
    (self.body, self.seconds, self.rounds, self.systems) = (body, seconds, rounds, systems)
    self.count = count
    self.syncs = Dictionary(
      syncs.compactMap { text in
        let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
        return parts.count == 2 ? (parts[0], parts[1]) : nil
      }, uniquingKeysWith: { $1 })
  }

  // MARK: Collecting

  /// A line, with its keys in order.
  private struct Line: Encodable {
    var system: String
    var workload: String
    var round: Int
    var producers: Int
    var batch: Int
    var isDurable: Bool
    var requests: Int
    var messagesPerSecond: Double
    var p50Microseconds: Double
    var p99Microseconds: Double
    var p999Microseconds: Double
  }

  mutating func open(_ path: String) throws {
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let file = FileHandle(forWritingAtPath: path)
    else { throw LoadError("\(path) cannot be written.") }
    json = file
    let head = [
      "machine": Machine.description, "body": "\(body)", "seconds": "\(seconds)",
      "rounds": "\(rounds)",
    ]
    try write(head)
  }

  private func write(_ line: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    try json?.write(contentsOf: try encoder.encode(line) + [0x0a])
  }

  mutating func add(
    _ result: Measurement, of system: any PeerSystem, _ work: PeerWork, _ round: Int
  ) throws {
    runs[Key(system: system.name, work: work), default: []].append(result)
    try write(
      Line(
        system: system.name, workload: work.name, round: round, producers: work.producers,
        batch: work.batch, isDurable: system.isDurable, requests: Int(result.latencies.count),
        messagesPerSecond: result.rate, p50Microseconds: result.percentile(0.5),
        p99Microseconds: result.percentile(0.99),
        p999Microseconds: result.percentile(0.999)))
  }

  mutating func fail(_ system: any PeerSystem, _ work: PeerWork, _ why: String) {
    failures[Key(system: system.name, work: work)] = why
  }

  func hasFailed(_ system: any PeerSystem, _ work: PeerWork) -> Bool {
    failures[Key(system: system.name, work: work)] != nil
  }

  mutating func finish() {
    // Each line was written as it came: a close that fails loses none.
    try? json?.close()
    json = nil
  }

  /// The rates of the rounds, lowest first.
  private func rates(_ system: any PeerSystem, _ work: PeerWork) -> [Double]? {
    runs[Key(system: system.name, work: work)].map { $0.map(\.rate).sorted() }
  }

  static func median(_ sorted: [Double]) -> Double {
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }

  private var works: [PeerWork] {
    PeerWork.all.filter { work in
      systems.contains { rates($0, work) != nil || hasFailed($0, work) }
    }
  }

  // MARK: Table

  private var duration: String {
    count.map { "\($0) requests each" } ?? "median of \(rounds) rounds of \(seconds) s each"
  }

  var text: String {
    var lines = [
      "Machine: \(Machine.description). Bodies of \(body) bytes; \(duration), in turns.", "",
      "| System | An answer follows | Syncs per request, counted |", "| --- | --- | --- |",
    ]
    for system in systems {
      let name = system.name + (system.isDurable ? "" : ", not durable")
      lines.append("| \(name) | \(system.durability) | \(syncs[system.name] ?? "not counted") |")
    }
    lines += [
      "", "| Workload | System | Messages/s | Lowest to highest | p50 µs | p99 µs | Of raw |",
      "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    // What is not durable stands apart from what is.
    let parts = [true, false].map { isDurable in systems.filter { $0.isDurable == isDurable } }
    for part in parts {
      for work in works {
        for system in part { if let row = row(system, work) { lines.append(row) } }
      }
    }
    for system in systems {
      for work in works {
        guard let why = failures[Key(system: system.name, work: work)] else { continue }
        lines += ["", "\(system.name), \(work.name): \(why)"]
      }
    }
    return lines.joined(separator: "\n")
  }

  private func row(_ system: any PeerSystem, _ work: PeerWork) -> String? {
    let key = Key(system: system.name, work: work)
    guard let rates = rates(system, work), let runs = runs[key] else { return nil }
    func microseconds(_ share: Double) -> String {
      whole(Self.median(runs.map { $0.percentile(share) }.sorted()))
    }
    let rate = Self.median(rates)
    let raw = systems.first { $0.name == "raw" }.flatMap { self.rates($0, work) }
    let ofRaw =
      !system.isDurable
      ? nil
      : raw.map { raw in
        let share = rate / Self.median(raw)
        return "\(Double(Int((share * 100).rounded())) / 100)"
      }
    let name = system.name + (system.isDurable ? "" : ", not durable")
    let range = "\(Self.grouped(rates[0])) to \(Self.grouped(rates[rates.count - 1]))"
    return "| \(work.title) | \(name) | \(Self.grouped(rate)) | \(range) | \(microseconds(0.5)) "
      + "| \(microseconds(0.99)) | \(ofRaw ?? "") |"
  }

  /// With a comma at each thousand.
  static func grouped(_ value: Double) -> String {
    var text = ""
    let digits = Array(whole(value))
    for (place, digit) in digits.enumerated() {
      if place > 0, (digits.count - place) % 3 == 0 { text += "," }
      text.append(digit)
    }
    return text
  }

  // MARK: Plot

  /// A panel for each workload, a bar for each system that is durable: the median, and a line from
  /// the lowest round to the highest.
  var plot: String {
    let works = works
    let others = systems.filter { !$0.isDurable }.map(\.name)
    let systems = systems.filter(\.isDurable)
    let note = others.isEmpty ? "" : "; not durable, so not here: \(others.joined(separator: ", "))"
    let (width, bar, left) = (560, 20, 150)
    let height = systems.count * bar + 58
    let rows = (works.count + 1) / 2
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(2 * width)\" "
        + "height=\"\(rows * height + 40)\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      "<text x=\"12\" y=\"22\" font-size=\"14\">Durable messages per second: median, and lowest to "
        + "highest of \(rounds) rounds; bodies of \(body) bytes\(note)</text>",
    ]
    for (place, work) in works.enumerated() {
      let (x, y) = (place % 2 * width, place / 2 * height + 36)
      lines.append(
        "<text x=\"\(x + 12)\" y=\"\(y + 20)\" font-weight=\"bold\">\(work.title)</text>")
      let most = systems.compactMap { rates($0, work)?.last }.max() ?? 1
      let scale = Double(width - left - 90) / max(most, 1)
      for (index, system) in systems.enumerated() {
        let top = y + 30 + index * bar
        lines.append(
          "<text x=\"\(x + left - 6)\" y=\"\(top + 14)\" text-anchor=\"end\">\(system.name)</text>")
        guard let rates = rates(system, work) else {
          let why = hasFailed(system, work) ? "failed" : "has no such request"
          lines.append(
            "<text x=\"\(x + left + 4)\" y=\"\(top + 14)\" fill=\"#777\">\(why)</text>")
          continue
        }
        let median = Self.median(rates)
        let (low, high) = (rates[0] * scale, rates[rates.count - 1] * scale)
        let (from, to) = (x + left + Int(low), x + left + Int(high))
        lines += [
          "<rect x=\"\(x + left)\" y=\"\(top + 3)\" width=\"\(max(1, Int(median * scale)))\" "
            + "height=\"\(bar - 6)\" fill=\"\(Self.colour(of: system))\"/>",
          "<line x1=\"\(from)\" y1=\"\(top + bar / 2)\" x2=\"\(to)\" y2=\"\(top + bar / 2)\" "
            + "stroke=\"black\"/>",
          "<text x=\"\(to + 6)\" y=\"\(top + 14)\">\(Self.grouped(median))</text>",
        ]
      }
    }
    return (lines + ["</svg>", ""]).joined(separator: "\n")
  }

  private static func colour(of system: any PeerSystem) -> String {
    if system.name == "raw" { return "#999999" }
    return system.name.hasPrefix("penstock") ? "#2b6cb0" : "#e0a458"
  }
}
