// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockTesting
import Testing

#if canImport(Glibc)
  import Glibc
#endif

/// The real executable, as a user starts it.
@Suite struct ServeCommand {
  struct Outcome {
    var status: Int32
    var output: String
    var errors: String
  }

  /// The `penstock` that was built beside the tests.
  private static func executable() throws -> URL {
    var directory = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    for _ in 0..<4 {
      let candidate = directory.appendingPathComponent("penstock")
      var isDirectory: ObjCBool = false
      if FileManager.default.fileExists(atPath: candidate.path, isDirectory: &isDirectory),
        !isDirectory.boolValue
      {
        return candidate
      }
      directory.deleteLastPathComponent()
    }
    throw HTTPClient.Failure(what: "no penstock beside \(CommandLine.arguments[0])")
  }

  /// Starts `penstock` with these arguments; `whileRunning` gets what it printed first.
  static func run(
    _ arguments: [String],
    whileRunning: @escaping @Sendable (Process, String) throws -> Void = { _, _ in }
  ) async throws -> Outcome {
    try await ServerFixture.onThread {
      let process = Process()
      process.executableURL = try executable()
      process.arguments = arguments
      let (output, errors) = (Pipe(), Pipe())
      process.standardOutput = output
      process.standardError = errors
      try process.run()
      var first = ""
      while !first.contains("listening on") {
        let more = output.fileHandleForReading.availableData
        guard !more.isEmpty else { break }
        first += String(decoding: more, as: UTF8.self)
      }
      do {
        try whileRunning(process, first)
      } catch {
        process.terminate()
        process.waitUntilExit()
        throw error
      }
      let rest = output.fileHandleForReading.readDataToEndOfFile()
      let problems = errors.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      return Outcome(
        status: process.terminationStatus, output: first + String(decoding: rest, as: UTF8.self),
        errors: String(decoding: problems, as: UTF8.self))
    }
  }

  private static func temporaryPath() -> String {
    FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-serve-\(UUID().uuidString)").path
  }

  @Test func otherAddressesNeedCredentials() async throws {
    let path = Self.temporaryPath()
    let outcome = try await Self.run(["serve", "--data-dir", path, "--host", "0.0.0.0"])
    #expect(outcome.status != 0)
    #expect(outcome.errors.contains("--credentials"))
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test(arguments: [
    ["serve", "--port", "65536"], ["serve", "--port", "x"], ["serve", "--port", "-1"],
    ["serve", "--data-dir", ""], ["serve", "--maximum-clock-jump-days=-1"],
    ["serve", "--frobnicate"], ["frobnicate"], ["serve", "--account", "12345678901"],
    ["serve", "--region", "Mars"], ["serve", "--public-url", "ftp://h"],
    ["serve", "--public-url", "https://h/"], ["serve", "--tls-key", "x"],
    ["serve", "--tls-certificate", "x"], ["serve", "--limits", "none"],
    ["serve", "--maximum-connections", "0"], ["serve", "--maximum-body-bytes", "1"],
    ["serve", "--maximum-buffered-bytes", "4096"], ["serve", "--request-timeout-seconds", "0"],
    ["serve", "--idle-timeout-seconds", "0"], ["serve", "--allow-anonymous"],
  ])
  func wrongArgumentsAreRefused(_ arguments: [String]) async throws {
    let outcome = try await Self.run(arguments)
    #expect(outcome.status != 0)
    #expect(outcome.errors.hasPrefix("Error: "))
  }

  @Test func aStartThatAClockFarAheadWouldMakeCostlyIsRefused() async throws {
    let path = Self.temporaryPath()
    defer { try? FileManager.default.removeItem(atPath: path) }
    var environment = StoreEnvironment()
    let wall = (Int64(Date().timeIntervalSince1970) - 400 * 86_400) * 1000 - 500
    environment.clock = SimulatedClock(wallMilliseconds: wall)
    let store = try await Store.open(at: path, environment: environment)
    try await store.queue("q").send("x")
    try await store.close()
    let outcome = try await Self.run(["serve", "--data-dir", path, "--port", "0"])
    #expect(outcome.status != 0)
    #expect(outcome.errors.contains("400 days ahead"))
    #expect(outcome.errors.contains("--maximum-clock-jump-days"))
    #expect(outcome.errors.split(separator: "\n").count == 1)
  }

  @Test func unusableDirectoryIsOneLine() async throws {
    let outcome = try await Self.run(["serve", "--data-dir", "/dev/null/x", "--port", "0"])
    #expect(outcome.status != 0)
    #expect(outcome.errors.hasPrefix("Error: cannot open the store in /dev/null/x: "))
    #expect(outcome.errors.split(separator: "\n").count == 1)
  }

  @Test(arguments: [SIGTERM, SIGINT])
  func signalEndsAWaitingPollAndStopsCleanly(_ signal: Int32) async throws {
    let path = Self.temporaryPath()
    defer { try? FileManager.default.removeItem(atPath: path) }
    let outcome = try await Self.run(["serve", "--data-dir", path, "--port", "0"]) {
      process, text in
      #expect(text.contains("data directory"))
      #expect(text.contains("durability"))
      #expect(text.contains("recovery"))
      let marker = "listening on http://127.0.0.1:"
      let start = try #require(text.range(of: marker)).upperBound
      let port = try #require(Int(text[start...].prefix { $0.isNumber }))
      let client = try HTTPClient(port: port)
      #expect(try client.call("CreateQueue", #"{"QueueName":"q"}"#).status == 200)
      let taken = try HTTPClient(port: port)
      try taken.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#))
      // That the poll waits cannot be seen from here; this many requests later it does.
      for _ in 0..<300 { _ = try client.call("ListQueues", "{}") }
      kill(process.processIdentifier, signal)
      #expect(try taken.readResponse().text == "{}")
    }
    #expect(outcome.status == 0)
    #expect(outcome.errors.isEmpty)
    #expect(outcome.output.hasSuffix("stopped cleanly\n"))
  }
}
