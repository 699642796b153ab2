// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Logging
import Penstock
import PenstockSQS
import PenstockServer
import UnixSignals

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// `penstock serve`: opens a store and answers SQS requests until a signal ends it.
struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve the queues of a data directory over the SQS protocol.",
    discussion: """
      Any AWS client works with --endpoint-url http://HOST:PORT and, without --credentials, with \
      any key. SIGTERM and SIGINT end long polls, let running requests finish and close the store.
      """)

  @Option(help: "Directory of the store. It is created when it is not there.")
  var dataDir = "./penstock-data"

  @Option(help: "Address to listen on.")
  var host = "127.0.0.1"

  @Option(help: "Port to listen on. 0 takes any free one.")
  var port = 9324

  @Option(
    help: """
      Size of the log's segment files in bytes: a multiple of 4096 from 65536 to 1073741824. The \
      store takes two of them at least.
      """)
  var segmentSize = StoreOptions().segmentSize

  @Option(
    help: """
      How many bytes of sealed segments are read per second in search of damage. 0 reads none.
      """)
  var scrubBytesPerSecond = StoreOptions().scrubBytesPerSecond

  @Option(
    help: """
      How many bytes of messages are copied per second to free disk space. When much more is used \
      than is needed, the store does not keep to it.
      """)
  var compactionBytesPerSecond = StoreOptions().compactionBytesPerSecond

  @Option(
    help: """
      Most messages in flight of a queue that is made over the protocol, which keeps it. 0 for no \
      limit. (default: 120000; 0 with --limits extended)
      """)
  var maximumInFlight: Int?

  @Option(
    help: ArgumentHelp(
      "What an acknowledgement means: synced survives power loss, written the process only.",
      valueName: "synced|written"),
    transform: { text throws in
      guard let mode = Durability(rawValue: text) else {
        throw ValidationError("--durability must be synced or written.")
      }
      return mode
    })
  var durability = Durability.synced

  @Option(
    help: """
      How many days the machine's clock may be ahead of the newest record when messages would \
      expire by that. 0 takes any clock.
      """)
  var maximumClockJumpDays = 180

  @Option(
    help: """
      File with the access keys of callers, like ~/.aws/credentials. With it requests must be \
      signed, and permissions are looked at. It is read again when it changes.
      """)
  var credentials: String?

  @Option(
    help: """
      File with the keys that messages are encrypted with on disk. It is read again when it changes.
      """)
  var keyRing: String?

  @Flag(
    help: """
      As on Amazon, refuse a second purge of a queue within a minute, and a new queue under the \
      name of one that was deleted a minute ago.
      """)
  var cooldowns = false

  @OptionGroup var connections: ConnectionOptions

  func validate() throws {
    guard (0...65_535).contains(port) else {
      throw ValidationError("--port must be between 0 and 65535.")
    }
    guard (65_536...1 << 30).contains(segmentSize), segmentSize.isMultiple(of: 4096) else {
      throw ValidationError(
        "--segment-size must be a multiple of 4096 from 65536 to 1073741824.")
    }
    guard scrubBytesPerSecond >= 0 else {
      throw ValidationError("--scrub-bytes-per-second must not be negative.")
    }
    guard compactionBytesPerSecond > 0 else {
      throw ValidationError("--compaction-bytes-per-second must be at least 1.")
    }
    guard maximumInFlight ?? 0 >= 0 else {
      throw ValidationError("--maximum-in-flight must not be negative.")
    }
    guard (0...100_000).contains(maximumClockJumpDays) else {
      throw ValidationError("--maximum-clock-jump-days must be between 0 and 100000.")
    }
    guard !dataDir.isEmpty else { throw ValidationError("--data-dir must name a directory.") }
    guard !host.isEmpty else { throw ValidationError("--host must name an address.") }
    guard credentials != nil || PenstockServer.isLoopback(host) else {
      throw ValidationError(
        "--host \(host) is not loopback, and without credentials anyone who reaches it could use "
          + "the queues. Give --credentials.")
    }
  }

  func run() async throws {
    Self.raiseFileLimit()
    var logger = Logger(label: "penstock") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .warning
    // Before anything is open, so that a signal never cuts off recovery half way.
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)

    var configuration = PenstockServer.Configuration()
    if let maximumInFlight {
      configuration.maximumInFlight = maximumInFlight
    } else if connections.limits == .extended {
      configuration.maximumInFlight = 0
    }
    configuration.credentialsPath = credentials
    configuration.hasCooldowns = cooldowns
    let keys = watchKeyRing(&configuration)
    connections.apply(to: &configuration)
    let server: PenstockServer
    do {
      server = try await PenstockServer.listen(
        on: host, port: port, configuration: configuration, logger: logger)
    } catch {
      throw Failure("\(error)")
    }
    Self.say("penstock opens \(dataDir): \(server.endpoint)/penstock/health/ready")
    let store: Store
    do {
      var options = StoreOptions()
      options.segmentSize = segmentSize
      options.durability = durability
      options.scrubBytesPerSecond = scrubBytesPerSecond
      options.compactionBytesPerSecond = compactionBytesPerSecond
      options.maximumClockJump =
        maximumClockJumpDays == 0 ? nil : .seconds(maximumClockJumpDays * 86_400)
      options.log = { [logger] text in logger.error("\(text)") }
      options.onEvent = server.note
      options.cipher = keys
      store = try await Store.open(at: dataDir, options: options)
    } catch {
      await server.stop()
      let option = error.code == .clockJumped ? " (--maximum-clock-jump-days)" : ""
      throw Failure("cannot open the store in \(dataDir): \(error.message)\(option)")
    }
    await server.serve(store)
    Self.say(startText(server.endpoint, store, keys))

    for await _ in signals { break }
    await server.stop()
    do {
      try await store.close()
    } catch {
      throw Failure("closing the store failed: \(error.message)")
    }
    Self.say("stopped cleanly")
  }

  private func startText(
    _ endpoint: String, _ store: Store, _ keys: KeyRing?
  ) -> String {
    let durability =
      switch store.durability {
      case .synced: "synced: an acknowledged message survives power loss"
      case .written: "written: an acknowledged message survives the process, not power loss"
      }
    let recovery = store.recovery.description.split(
      separator: "\n", omittingEmptySubsequences: true)
    var lines = [
      "penstock is listening on \(endpoint)",
      "  data directory  \(store.path)",
      "  durability      \(durability)",
      "  credentials     \(credentials ?? "any")",
    ]
    func add(_ title: String, _ texts: [String]) {
      for (place, text) in texts.enumerated() {
        lines.append("  " + pad(place == 0 ? title : "", 16) + text)
      }
    }
    add("encryption", encryption(store, keys))
    add("recovery", recovery.map { String($0) })
    return lines.joined(separator: "\n")
  }

  /// The key ring, if one is given; it is read before the server listens.
  private func watchKeyRing(_ configuration: inout PenstockServer.Configuration) -> KeyRing? {
    guard let keyRing else { return nil }
    let ring = KeyRing()
    configuration.watchedFiles.append(
      WatchedFiles([keyRing]) { contents in
        do throws(KeyRingError) {
          try ring.replace(parsing: String(decoding: contents[0], as: UTF8.self))
        } catch { throw Failure("the key ring \(keyRing): \(error)") }
      })
    return ring
  }

  /// What becomes of messages on disk, and which queues are not as they say.
  private func encryption(_ store: Store, _ keys: KeyRing?) -> [String] {
    var (locked, pretending): ([String], [String]) = ([], [])
    for name in store.queueNames() {
      guard let settings = store.lookup(name)?.settings else { continue }
      if !settings.encryptionKey.isEmpty, keys?.has(key: settings.encryptionKey) != true {
        locked.append("\(name) (\(settings.encryptionKey))")
      }
      if !settings.showsEncryption.isEmpty { pretending.append(name) }
    }
    func tell(_ text: String, _ names: [String]) -> [String] {
      names.isEmpty
        ? []
        : [text + names.prefix(10).joined(separator: ", ") + (names.count > 10 ? ", …" : "")]
    }
    return [keyRing.map { "with the keys of \($0)" } ?? "none"]
      + tell("no key, so no sends and receives: ", locked)
      + tell("said to be encrypted and not: ", pretending)
  }

  /// Writes a line to standard output at once, also when that is a file or a pipe.
  private static func say(_ text: String) {
    var bytes = Array((text + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      // Nobody reads: the server runs without being heard.
      guard count > 0 else { return }
      bytes = bytes.dropFirst(count)
    }
  }

  /// Raises the soft limit of open files to the hard one, for as many connections as may be. If
  /// that fails, the server makes do with fewer. Answers the limit.
  @discardableResult
  static func raiseFileLimit() -> Int {
    #if canImport(Glibc)
      let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
      let resource = RLIMIT_NOFILE
    #endif
    var limit = rlimit()
    guard getrlimit(resource, &limit) == 0 else { return 0 }
    let before = limit.rlim_cur
    limit.rlim_cur = limit.rlim_max
    return Int(clamping: setrlimit(resource, &limit) == 0 ? limit.rlim_cur : before)
  }

  /// An error that is one line on standard error.
  struct Failure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
  }
}
