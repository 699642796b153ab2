// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import PenstockTools
import Testing

/// Hides nothing from anybody but a search for the text.
private struct Complement: ContentCipher {
  func has(key: String) -> Bool { true }
  func seal(
    _ plain: [UInt8], key: String, reuse: Duration, at time: Timestamp
  ) throws(PenstockError) -> [UInt8] { plain.map { ~$0 } }
  func open(_ sealed: [UInt8], key: String) throws(PenstockError) -> [UInt8] {
    sealed.map { ~$0 }
  }
}

@Suite struct SealedMessages {
  private static let secret = "nobody but the receiver reads this"

  private static func open(
    _ disk: SimulatedFileSystem, _ directory: String = Sample.directory
  ) throws -> Store {
    var options = Sample.options
    options.cipher = Complement()
    return try Store.openBlocking(
      at: directory, options: options, environment: Sample.environment(disk))
  }

  /// Tools have no keys: they name the key and show no body; copies hold what the original does.
  @Test func toolsCarryWhatTheyCannotRead() async throws {
    let sample = Sample(disk: SimulatedFileSystem())
    let store = try Self.open(sample.disk)
    let queue = try await store.queue("orders", QueueSettings { $0.encryptionKey = "a key" })
    for number in 0..<20 { try await queue.send("\(Self.secret) \(number)") }
    for lease in try await queue.receive(maximum: 2) { try await lease.delete() }
    try await store.close()
    for (name, bytes) in try sample.image() {
      #expect(!String(decoding: bytes, as: UTF8.self).contains(Self.secret), "\(name)")
    }
    var inspect = Inspect(sample.context)
    inspect.showsRecords = true
    let lines = try inspect.lines().lines
    #expect(lines.filter { $0.contains("sealedWith a key") }.count == 20)
    #expect(!lines.contains { $0.contains(Self.secret) })
    #expect(try Verify(sample.context).run().isSound)

    let file = try LineFile("/export", sample.context)
    let report = try Salvage(sample.context).run(export: file)
    #expect(report.live == 18)
    try file.finish()
    let exported = String(decoding: sample.disk.contents(of: "/export") ?? [], as: UTF8.self)
    #expect(exported.components("\"sealedWith\":\"a key\"") == report.messages)
    #expect(exported.components("\"sealedBase64\":\"") == report.messages)
    #expect(exported.components("\"body\"") == 0)

    _ = try Backup(sample.context, target: "/backup").run()
    _ = try Restore(Sample.context(sample.disk, "/backup"), to: "/restored").run()
    let restored = try Self.open(sample.disk, "/restored")
    let again = try #require(restored.existingQueue("orders"))
    var bodies: Set<String> = []
    try await again.walk { message in
      bodies.insert(String(decoding: message.content.body, as: UTF8.self))
      return true
    }
    #expect(bodies == Set((2..<20).map { "\(Self.secret) \($0)" }))
    try await restored.close()
  }
}

extension String {
  /// How often a text is in it.
  fileprivate func components(_ text: String) -> Int { split(separator: text).count - 1 }
}
