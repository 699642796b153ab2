// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// Small runs of the measurements: that they measure at all, not what.
@Suite struct BenchCommand {
  /// Runs a benchmark in a directory of its own, in which it may leave files that were asked for.
  private func run(
    _ arguments: [String], leaving files: [String] = [],
    _ look: (URL, ServeCommand.Outcome) throws -> Void
  ) async throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let named = arguments.map { $0.hasPrefix("FILE.") ? "\(directory.path)/\($0)" : $0 }
    let outcome = try await ServeCommand.run(["bench"] + named + ["--directory", directory.path])
    #expect(outcome.status == 0, "\(outcome.errors)")
    #expect(outcome.errors.isEmpty)
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() == files)
    try look(directory, outcome)
  }

  @Test(arguments: [
    (["scale", "--most", "1000", "--rounds", "2", "--curve", "queues", "in-flight"], 12 + 6),
    (
      [
        "scale", "--most", "10000", "--rounds", "1", "--curve", "groups", "one-group", "waiting",
        "producers",
      ], 6 + 6 + 6 + 5
    ),
    (["memory", "--messages", "400"], 3),
    (["waiting", "--polls", "20", "--seconds", "0.1", "--sends", "20"], 4),
    (["fair", "--flood", "50", "--quiet", "5", "--work", "1"], 6),
    (
      [
        "wire", "--work", "send", "cycles", "empty", "--seconds", "0.1", "--warm-up", "0",
        "--rounds", "1", "--connections", "4", "--batch", "3",
      ], 3
    ),
    (
      [
        "wire", "--work", "cycle", "--seconds", "0.1", "--warm-up", "0", "--rounds", "1",
        "--connections", "2", "--rate", "100",
      ], 1
    ),
    (
      [
        "peers", "--only", "raw", "penstock", "penstock-http", "--work", "send-16x10", "cycle-1x1",
        "--count", "5",
      ], 6
    ),
  ])
  func printsARowOfEach(_ arguments: [String], _ rows: Int) async throws {
    try await run(arguments) { _, outcome in
      let named = outcome.output.split(separator: "\n").filter { line in
        [
          "queues  ", "messages in flight  ", "FIFO groups  ", "messages of one group  ",
          "waiting messages  ", "producers  ", "a waiting", "a group, ", "a lease, ",
          "in process, ", "HTTP, ", "8  ", "64  ", "send  ", "cycle  ", "cycles  ", "empty  ",
          "| send: ", "| send, receive",
        ]
        .contains { line.hasPrefix($0) }
      }
      #expect(named.count == rows, "\(outcome.output)")
    }
  }

  private struct Report: Decodable {
    struct Latency: Decodable { var p50, p99, p999, max: Double }
    struct Row: Decodable {
      var workload: String
      var name: String
      var server: String?
      var messages: Int
      var unserved: Int
      var latency: Latency
      var perSecond: [Int]
      var left: Int
      var requestsPerSecond: Double?
      var syncsPerSecond: Double?
      var ofDevice: Double?
    }
    struct Device: Decodable { var writers, block: Int }
    struct FileSystem: Decodable { var type: String }
    var durability: String
    var machine: String
    var fileSystem: FileSystem
    var device: [Device]
    var rows: [Row]
  }

  @Test(arguments: ["synced", "written"])
  func throughputTellsAllItMeasured(_ durability: String) async throws {
    let arguments = [
      "--seconds", "0.3", "--warm-up", "0", "--producers", "3", "--batch", "2", "--body", "64",
      "--groups", "7", "--messages", "1000", "--durability", durability, "--json", "FILE.json",
      "--plot", "FILE.svg",
    ]
    try await run(arguments, leaving: ["FILE.json", "FILE.svg"]) { directory, outcome in
      #expect(outcome.output.contains("durability   \(durability)"))
      let report = try JSONDecoder().decode(
        Report.self, from: Data(contentsOf: directory.appendingPathComponent("FILE.json")))
      #expect(report.durability == durability)
      #expect(report.device.map(\.block) == [4096, 65_536, 1 << 20, 4096])
      #expect(report.device.map(\.writers) == [1, 1, 1, 64])
      #expect(
        report.rows.map(\.workload) == [
          "send", "send-by-completion", "receive", "cycle", "mixed", "mixed", "fan-in", "fan-in",
          "fan-in-queues", "fan-in-queues", "drain", "groups", "groups", "large", "large",
        ])
      for row in report.rows {
        // Who receives what others send may come too late for so short a time.
        // And a busy disk may not take a megabyte in that time.
        let mayBeNone = row.name.hasSuffix(": receives") || row.workload == "large"
        guard row.messages > 0 || !mayBeNone else { continue }
        #expect(row.messages > 0, "\(row.name)")
        #expect(row.latency.p50 > 0 && row.latency.p50 <= row.latency.p99, "\(row.workload)")
        #expect(row.latency.p999 <= row.latency.max, "\(row.workload)")
        #expect(!row.perSecond.isEmpty)
        // Leases alone are not synced.
        let syncs = durability == "synced" && row.workload != "receive"
        #expect(row.syncsPerSecond ?? 0 > 0 || !syncs, "\(row.workload)")
      }
      let plot = try String(
        contentsOf: directory.appendingPathComponent("FILE.svg"), encoding: .utf8)
      #expect(plot.hasPrefix("<svg ") && plot.hasSuffix("</svg>\n"))
      // Two panels with a line for each row that has messages.
      let drawn = report.rows.count { $0.messages > 0 }
      #expect(plot.components(separatedBy: "<polyline ").count - 1 == 2 * drawn)
    }
  }

  @Test func wireTellsAllItMeasured() async throws {
    let arguments = [
      "wire", "--seconds", "0.2", "--warm-up", "0", "--rounds", "1", "--connections", "3",
      "--batch", "2", "--body", "64", "--groups", "7", "--messages", "50", "--json", "FILE.json",
      "--plot", "FILE.svg",
    ]
    try await run(arguments, leaving: ["FILE.json", "FILE.svg"]) { directory, outcome in
      let report = try JSONDecoder().decode(
        Report.self, from: Data(contentsOf: directory.appendingPathComponent("FILE.json")))
      #expect(outcome.output.contains("\nfile system  \(report.fileSystem.type) "))
      #expect(report.durability == "synced")
      #expect(report.device.map(\.block) == [4096, 65_536, 1 << 20, 4096])
      #expect(
        report.rows.map(\.name) == [
          "send", "batch", "cycle", "cycles", "empty", "receive", "drain", "mixed: sends",
          "mixed: receives", "fan-in: sends", "fan-in: receives", "groups: sends",
          "groups: receives", "large",
        ])
      for row in report.rows {
        #expect(row.server == "penstock")
        // Who receives what others send may come too late for so short a time.
        let isDelivery = row.name.hasSuffix(": receives")
        #expect(row.messages > 0 || isDelivery || row.name == "empty", "\(row.name)")
        #expect(row.requestsPerSecond ?? 0 > 0 || isDelivery, "\(row.name)")
        #expect(row.latency.p50 <= row.latency.p99, "\(row.name)")
        // Nothing is left of what was there before, if there was time for all of it.
        if ["receive", "drain"].contains(row.name) { #expect(row.messages + row.left == 50) }
      }
      let plot = try String(
        contentsOf: directory.appendingPathComponent("FILE.svg"), encoding: .utf8)
      let drawn = report.rows.count { $0.latency.max > 0 }
      #expect(plot.components(separatedBy: "<polyline ").count - 1 == 2 * drawn)
    }
  }

  @Test func anOpenLoopMakesTheRequestsThatAreDueOverHTTP() async throws {
    let arguments = [
      "wire", "--work", "send", "cycles", "--seconds", "0.5", "--warm-up", "0", "--rounds", "2",
      "--connections", "2", "--batch", "2", "--rate", "100", "--json", "FILE.json",
    ]
    try await run(arguments, leaving: ["FILE.json"]) { directory, _ in
      let report = try JSONDecoder().decode(
        Report.self, from: Data(contentsOf: directory.appendingPathComponent("FILE.json")))
      // Of both rounds.
      #expect(report.rows.map(\.messages) == [100, 200])
      // A schedule is no limit that the device sets.
      #expect(report.rows.allSatisfy { $0.ofDevice == nil })
    }
  }

  @Test func aServerThatIsNotThereIsToldAndNothingIsMeasured() async throws {
    let outcome = try await ServeCommand.run([
      "bench", "wire", "--work", "send", "--only", "x", "--peer", "x=http://127.0.0.1:1",
    ])
    #expect(outcome.status != 0)
    #expect(outcome.output.contains("x: 127.0.0.1:1: "), "\(outcome.output)")
    #expect(!outcome.output.contains("the device alone"))
    #expect(outcome.errors.contains("no server did any of it"))
  }

  @Test func anOpenLoopMakesTheRequestsThatAreDue() async throws {
    let arguments = [
      "--workload", "send", "send-by-completion", "--seconds", "0.5", "--warm-up", "0",
      "--producers", "2", "--batch", "1", "--rate", "100", "--durability", "written",
      "--json", "FILE.json",
    ]
    try await run(arguments, leaving: ["FILE.json"]) { directory, _ in
      let report = try JSONDecoder().decode(
        Report.self, from: Data(contentsOf: directory.appendingPathComponent("FILE.json")))
      #expect(report.rows.map { $0.messages + $0.unserved } == [50, 50])
    }
  }

  @Test func microPrintsTimesAndWithoutCountersNoCounts() async throws {
    try await run(["micro", "--rounds", "1"]) { _, outcome in
      for name in ["record: encode", "CRC-32C", "state: apply", "SigV4", "service: ", "engine: "] {
        #expect(outcome.output.contains("\n\(name)"), "\(outcome.output)")
      }
      #expect(!outcome.output.contains("allocs"))
    }
  }

  @Test(arguments: [
    (["--workload", "sent"], "sent"), (["--body", "0"], "--body"),
    (["--workload", "groups", "--body", "8"], "at least 16 bytes for groups"),
    (["--workload", "groups", "--groups", "5"], "--groups must be at least --producers"),
    (["--rate", "0"], "--rate"), (["--durability", "relaxed"], "relaxed"),
    (["--batch", "1000", "--body", "1048576"], "at most 8 MiB"), (["--seconds", "0"], "--seconds"),
    (["--consumers", "0"], "--consumers"), (["--messages", "1"], "--messages"),
    (["micro", "--counts", "x"], "Benchmarks/micro"), (["micro", "--rounds", "0"], "--rounds"),
    (["scale", "--curve", "groups", "--most", "1000"], "fewer than two points of groups"),
    (["wire", "--work", "mixed", "--body", "31"], "at least 32 bytes for mixed"),
    (["wire", "--work", "groups", "--groups", "5"], "--groups must be at least --connections"),
    (["wire", "--large-body", "0"], "--large-body"), (["wire", "--only", "x"], "no server x"),
    (["wire", "--peer", "penstock=http://h:1"], "a name of its own"),
    (["scale", "--curve", "height"], "height"), (["memory", "--messages", "1"], "--messages"),
  ])
  func wrongOptionsAreRefusedInWords(_ arguments: [String], _ word: String) async throws {
    let outcome = try await ServeCommand.run(["bench"] + arguments)
    #expect(outcome.status != 0)
    #expect(outcome.errors.contains(word), "\(outcome.errors)")
    #expect(outcome.output.isEmpty)
  }
}
