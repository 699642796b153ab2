// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// Small runs of the measurements: that they measure at all, not what.
@Suite struct BenchCommand {
  @Test(arguments: [
    (["queues", "--large", "400", "--small", "200", "--leased", "200", "--rounds", "2"], 24 + 3),
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
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let outcome = try await ServeCommand.run(
      ["bench"] + arguments + ["--directory", directory.path])
    #expect(outcome.status == 0, "\(outcome.errors)")
    #expect(outcome.errors.isEmpty)
    let named = outcome.output.split(separator: "\n").filter { line in
      [
        "FIFO, ", "standard, ", "a waiting", "a group, ", "a lease, ", "in process, ", "HTTP, ",
        "8  ", "64  ", "send  ", "cycle  ", "cycles  ", "empty  ", "| send: ", "| send, receive",
      ]
      .contains { line.hasPrefix($0) }
    }
    #expect(named.count == rows, "\(outcome.output)")
    // Nothing is left behind.
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
  }
}
