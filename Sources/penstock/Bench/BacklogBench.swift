// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench backlog`: what a backlog costs in memory, start-up time, receives and pauses.
struct BacklogBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backlog",
    abstract: "Measure memory, start-up, receives and pauses against the length of a queue.",
    discussion: """
      Each row is three processes on one store: one fills it and ends by SIGKILL, one opens it, \
      receives and closes it, one opens it again. Memory is what is resident above a process that \
      has opened an empty store.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, parsing: .upToNextOption, help: "Waiting messages.")
  var messages = [10_000, 100_000, 1_000_000, 10_000_000]

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 100

  @Option(name: .long, help: "Messages that are leased before the sends are timed.")
  var leased = 100_000

  @Option(name: .long, help: "Draw start time and memory to start.svg and memory.svg there.")
  var plots: String?

  func validate() throws {
    guard messages.allSatisfy({ (1000...200_000_000).contains($0) }) else {
      throw ValidationError("--messages must be from 1000 to 200000000.")
    }
    guard (1...65_536).contains(body) else {
      throw ValidationError("--body must be from 1 to 65536 bytes.")
    }
    guard (0...1_000_000).contains(leased) else {
      throw ValidationError("--leased must be from 0 to 1000000.")
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine     \(Machine.description)")
    print("durability  synced; body \(body) bytes")
    print("")
    let empty = try step(["open", "\(root)/empty"])
    let idle = empty["resident"] ?? 0
    let short = try step(["short", "\(root)/short", "--body", "\(body)"])
    let shortRate = short["receives"] ?? 1
    print(
      "empty store: \(whole(idle)) MiB resident; receives of a short queue "
        + "\(whole(shortRate))/s")
    print("")
    print(
      lead("messages", 11) + lead("sent/s", 10) + lead("MiB fill", 9) + lead("MiB open", 9)
        + lead("ms killed", 10) + lead("ms closed", 10) + lead("receive/s", 10)
        + lead("of short", 9) + lead("disk/live", 10) + lead("p50 us", 8) + lead("p99.9 us", 9)
        + lead("of steady", 10) + lead("max us", 8))
    var points: [(count: Double, killed: Double, closed: Double, fill: Double, open: Double)] = []
    for count in messages {
      let path = "\(root)/\(count)"
      let size = ["--messages", "\(count)", "--body", "\(body)"]
      let filled = try step(["fill", path] + size)
      let killed = try step(["receive", path] + size)
      // What is steady depends on the device's hour: it is measured around each row.
      func steady() throws -> Double {
        defer { removeTree("\(root)/steady") }
        return try step(["send", "\(root)/steady", "--body", "\(body)"])["p999"] ?? 1
      }
      let before = try steady()
      let closed = try step(["send", path, "--leased", "\(leased)", "--body", "\(body)"])
      removeTree(path)
      let steadily = try (before + steady()) / 2
      print(
        lead("\(count)", 11) + lead(whole(filled["sends"] ?? 0), 10)
          + lead(whole((filled["resident"] ?? 0) - idle), 9)
          + lead(whole((killed["opened"] ?? 0) - idle), 9)
          + lead(whole(killed["start"] ?? 0), 10) + lead(whole(closed["start"] ?? 0), 10)
          + lead(whole(killed["receives"] ?? 0), 10)
          + lead(hundredths((killed["receives"] ?? 0) / shortRate), 9)
          + lead(hundredths((filled["disk"] ?? 0) / (filled["live"] ?? 1)), 10)
          + lead(whole(closed["p50"] ?? 0), 8) + lead(whole(closed["p999"] ?? 0), 9)
          + lead(hundredths((closed["p999"] ?? 0) / steadily), 10)
          + lead(whole(closed["max"] ?? 0), 8))
      points.append(
        (
          Double(count), killed["start"] ?? 0, closed["start"] ?? 0,
          (filled["resident"] ?? 0) - idle, (killed["opened"] ?? 0) - idle
        ))
    }
    print("")
    print(
      """
      "MiB" is memory above the empty store's, at the end of the filling and after the start.
      "ms" are starts after SIGKILL and after a close. Latencies are of single sends by one
      producer while \(leased) messages are leased, through rolls and checkpoints;
      "of steady" is p99.9 against a store that holds nothing else, before and after.
      """)
    guard let plots else { return }
    func draw(_ file: String, _ title: String, _ y: String, _ lines: [Plot.Line]) throws {
      try Plot(title: title, x: "waiting messages", y: y, hasLogarithmicX: true, lines: lines)
        .write(to: "\(plots)/\(file)")
    }
    try draw(
      "start.svg", "Start of a store with \(body)-byte messages", "ms",
      [
        .init(name: "after SIGKILL", color: "#c33", points: points.map { ($0.count, $0.killed) }),
        .init(name: "after a close", color: "#226", points: points.map { ($0.count, $0.closed) }),
      ])
    try draw(
      "memory.svg", "Memory above an empty store, \(body)-byte messages", "MiB",
      [
        .init(name: "after filling", color: "#c33", points: points.map { ($0.count, $0.fill) }),
        .init(name: "after a start", color: "#226", points: points.map { ($0.count, $0.open) }),
      ])
  }

  /// Runs a step in a process of its own, and reads the numbers that it prints.
  private func step(_ arguments: [String]) throws -> [String: Double] {
    try Self.runStep(["bench", "backlog-step"] + arguments)
  }

  /// Runs this program, and reads the numbers that it prints.
  static func runStep(_ arguments: [String]) throws -> [String: Double] {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    var numbers: [String: Double] = [:]
    for line in String(decoding: data, as: UTF8.self).split(separator: "\n") {
      let parts = line.split(separator: " ")
      if parts.count == 2 { numbers[String(parts[0])] = Double(parts[1]) }
    }
    guard numbers["done"] == 1 else {
      throw ValidationError("a step of the measurement failed: \(arguments.joined(separator: " "))")
    }
    return numbers
  }
}

/// One process of the measurement; prints a name and a number a line.
struct BacklogStep: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backlog-step", abstract: "A part of backlog.", shouldDisplay: false)

  enum Kind: String, ExpressibleByArgument, CaseIterable { case open, short, fill, receive, send }

  @Argument var kind: Kind
  @Argument var path: String
  @Option(name: .long) var messages = 1000
  @Option(name: .long) var body = 100
  @Option(name: .long) var leased = 0

  private func tell(_ name: String, _ value: Double) { print("\(name) \(value)") }

  func run() async throws {
    let clock = RealClock()
    let began = clock.monotonicNanoseconds()
    let store = try await Store.open(at: path)
    tell("start", Double(clock.monotonicNanoseconds() - began) / 1e6)
    tell("opened", Self.residentMebibytes())
    let queue = try await store.queue("backlog")
    let entries = (0..<500).map { _ in
      SendEntry(MessageContent(body: [UInt8](repeating: 97, count: body)))
    }
    switch kind {
    case .open: break
    case .short:
      var rate = Measurement(count: 0, elapsed: 0)
      for _ in 0..<200 {
        _ = try await queue.send(batch: entries)
        try await receive(entries.count, queue, clock, &rate)
      }
      tell("receives", rate.rate)
    case .fill:
      let began = clock.monotonicNanoseconds()
      try await withThrowingTaskGroup { group in
        for producer in 0..<4 {
          group.addTask {
            for _ in stride(from: producer * 500, to: messages, by: 2000) {
              for result in try await queue.send(batch: entries) { _ = try result.get() }
            }
          }
        }
        try await group.waitForAll()
      }
      let seconds = Double(clock.monotonicNanoseconds() - began) / 1e9
      tell("sends", Double(messages) / seconds)
      tell("disk", Double(Self.bytes(in: path)))
      tell("live", Double(messages * roundUp(40 + body, to: 8)))
    case .receive:
      var rate = Measurement(count: 0, elapsed: 0)
      try await receive(1000, queue, clock, &rate)
      rate = Measurement(count: 0, elapsed: 0)
      try await receive(min(messages / 2, 200_000), queue, clock, &rate)
      tell("receives", rate.rate)
    case .send:
      var measurement = Measurement(count: 0, elapsed: 0)
      if leased > 0 { try await receive(leased, queue, clock, &measurement) }
      measurement = Measurement(count: 0, elapsed: 0)
      let end = clock.monotonicNanoseconds() + 20_000_000_000
      let entry = [SendEntry(MessageContent(body: [UInt8](repeating: 97, count: 4000)))]
      while clock.monotonicNanoseconds() < end {
        let began = clock.monotonicNanoseconds()
        for result in try await queue.send(batch: entry) { _ = try result.get() }
        measurement.latencies.record(clock.monotonicNanoseconds() - began)
      }
      tell("p50", measurement.percentile(0.5))
      tell("p999", measurement.percentile(0.999))
      tell("max", measurement.percentile(1))
    }
    tell("resident", Self.residentMebibytes())
    tell("done", 1)
    if kind == .fill {
      fflush(nil)
      kill(getpid(), SIGKILL)
    }
    try await store.close()
  }

  /// Receives in tens, without deleting; adds the time that took.
  private func receive(
    _ count: Int, _ queue: Queue, _ clock: RealClock, _ rate: inout Measurement
  ) async throws {
    var left = count
    let began = clock.monotonicNanoseconds()
    while left > 0 {
      let found = try await queue.receive(
        maximum: min(10, left), wait: .seconds(1), visibilityTimeout: .seconds(3600))
      guard !found.isEmpty else { break }
      left -= found.count
    }
    rate.count += count - left
    rate.elapsed += clock.monotonicNanoseconds() - began
  }

  /// 0 where the system does not tell.
  static func residentMebibytes(_ process: String = "self") -> Double {
    guard let text = try? String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8),
      let pages = text.split(separator: " ").dropFirst().first.flatMap({ Double($0) })
    else { return 0 }
    return pages * 4096 / 1048576
  }

  static func bytes(in path: String) -> Int {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    return names.reduce(0) { sum, name in
      let attributes = try? FileManager.default.attributesOfItem(atPath: path + "/" + name)
      return sum + ((attributes?[.size] as? Int) ?? 0)
    }
  }
}
