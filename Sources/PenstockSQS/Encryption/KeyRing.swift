// SPDX-License-Identifier: Apache-2.0
internal import Crypto
public import Penstock
internal import Synchronization

/// Master keys by name and version, which seal and open the messages of a store with AES-256-GCM.
///
/// The text has one key per line: its name, its version, and the Base64 of 32 random bytes. What
/// follows a `#` is a comment. The highest version of a name seals; all of them open.
/// `Docs/encryption.md` has the rest.
public final class KeyRing: ContentCipher {
  /// The key of SSE-SQS.
  public static let managedKey = "sqs-managed"

  /// Most messages that one data key seals: nonces are random, and none may come twice.
  static let messagesPerDataKey = 1 << 30
  /// Most data keys of sealed messages that are kept in memory.
  static let openedDataKeys = 1024

  struct MasterKey: Sendable {
    var key: SymmetricKey
    /// Tells another key of the same name from damage.
    var fingerprint: [UInt8]

    init(_ bytes: [UInt8]) {
      key = SymmetricKey(data: bytes)
      let code = HMAC<SHA256>.authenticationCode(for: Array("penstock key".utf8), using: key)
      fingerprint = Array(Array(code).prefix(Envelope.fingerprintSize))
    }
  }

  /// A key that seals messages, and the envelope's beginning that holds it, wrapped.
  private struct DataKey: Sendable {
    var key: SymmetricKey
    var head: [UInt8]
    var madeAt: Timestamp
    var uses = 0
  }

  private struct State: Sendable {
    var keys: [String: [UInt32: MasterKey]]
    /// By the master key's name.
    var sealing: [String: DataKey] = [:]
    /// By the envelope's beginning.
    var opened: [[UInt8]: SymmetricKey] = [:]
  }

  private let state: Mutex<State>

  /// A ring without keys, before `replace`.
  public init() { state = Mutex(State(keys: [:])) }

  /// Reads a ring.
  ///
  /// - Throws: what is wrong with which line. No key is in the words.
  public init(parsing text: String) throws(KeyRingError) {
    state = Mutex(State(keys: try Self.keys(text)))
  }

  /// Takes over a ring that has changed. It must hold every key that is here: what is sealed with
  /// one that is gone could not be received. To drop a key, make another ring.
  ///
  /// - Throws: as `init`; nothing has changed then.
  public func replace(parsing text: String) throws(KeyRingError) {
    let keys = try Self.keys(text)
    let lost = state.withLock { state -> String? in
      for (name, versions) in state.keys {
        for (version, old) in versions where keys[name]?[version]?.fingerprint != old.fingerprint {
          return "\(name) \(version)"
        }
      }
      state = State(keys: keys)
      return nil
    }
    if let lost { throw KeyRingError(reason: "the key \(lost) is gone or is another") }
  }

  private static func keys(_ text: String) throws(KeyRingError) -> [String: [UInt32: MasterKey]] {
    var keys: [String: [UInt32: MasterKey]] = [:]
    let lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    for (index, line) in lines.enumerated() {
      let fields = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
      if fields.isEmpty { continue }
      func refusal(_ reason: String) -> KeyRingError {
        KeyRingError(reason: "line \(index + 1): \(reason)")
      }
      guard fields.count == 3 else {
        throw refusal("a key has a name, a version, and 32 bytes in Base64")
      }
      let name = String(fields[0])
      guard Envelope.isName(name) else {
        throw refusal("a name has up to \(Envelope.longestName) visible ASCII characters")
      }
      guard let version = UInt32(fields[1]), version > 0, "\(version)" == fields[1] else {
        throw refusal("a version is a number from 1 to \(UInt32.max)")
      }
      guard let bytes = Base64.decode(Array(fields[2].utf8)), bytes.count == 32 else {
        throw refusal("the key is not the Base64 of 32 bytes")
      }
      guard keys[name, default: [:]].updateValue(MasterKey(bytes), forKey: version) == nil else {
        throw refusal("the key \(name) \(version) is there twice")
      }
    }
    if keys.isEmpty { throw KeyRingError(reason: "there is no key in it") }
    return keys
  }

  public func has(key: String) -> Bool { state.withLock { $0.keys[key] != nil } }

  // MARK: Sealing

  public func seal(
    _ plain: [UInt8], key: String, reuse: Duration, at time: Timestamp
  ) throws(PenstockError) -> [UInt8] {
    let dataKey = try dataKey(key, reuse, time)
    do {
      let nonce = AES.GCM.Nonce()
      let head = dataKey.head + Array(nonce)
      let box = try AES.GCM.seal(plain, using: dataKey.key, nonce: nonce, authenticating: head)
      return head + Array(box.ciphertext) + Array(box.tag)
    } catch {
      throw PenstockError(.keyMismatch, "the key \(key) cannot seal: \(error)")
    }
  }

  /// The data key at hand, or a new one when that is too old or was used too often.
  private func dataKey(
    _ name: String, _ reuse: Duration, _ time: Timestamp
  ) throws(PenstockError) -> DataKey {
    let found = state.withLock { state -> Result<DataKey, PenstockError> in
      guard let newest = state.keys[name]?.max(by: { $0.key < $1.key }) else {
        return .failure(PenstockError(.keyNotFound, "there is no key \(name) in the key ring"))
      }
      if let old = state.sealing[name], old.uses < Self.messagesPerDataKey, old.madeAt <= time,
        .milliseconds(time.milliseconds - old.madeAt.milliseconds) < reuse
      {
        state.sealing[name]?.uses += 1
        return .success(old)
      }
      let key = SymmetricKey(size: .bits256)
      do {
        let head = try Envelope.wrap(key, name, newest.key, newest.value)
        let made = DataKey(key: key, head: head, madeAt: time, uses: 1)
        state.sealing[name] = made
        return .success(made)
      } catch {
        return .failure(PenstockError(.keyMismatch, "the key \(name) cannot wrap: \(error)"))
      }
    }
    return try found.get()
  }

  // MARK: Opening

  public func open(_ sealed: [UInt8], key name: String) throws(PenstockError) -> [UInt8] {
    guard let envelope = Envelope(sealed), envelope.name == name else {
      throw PenstockError(.keyMismatch, "its envelope is damaged, or of another key")
    }
    let (versions, cached) = state.withLock { ($0.keys[name], $0.opened[Array(envelope.head)]) }
    guard let master = versions?[envelope.version] else {
      throw PenstockError(.keyNotFound, "version \(envelope.version) of it is not in the key ring")
    }
    guard master.fingerprint == Array(envelope.fingerprint) else {
      throw PenstockError(
        .keyMismatch, "version \(envelope.version) of it in the key ring is another key")
    }
    do {
      let key = try cached ?? envelope.unwrap(master)
      let plain = try envelope.open(key)
      if cached == nil { keep(key, Array(envelope.head)) }
      return plain
    } catch {
      throw PenstockError(.keyMismatch, "its bytes were changed")
    }
  }

  private func keep(_ key: SymmetricKey, _ head: [UInt8]) {
    state.withLock { state in
      if state.opened.count >= Self.openedDataKeys { state.opened.removeAll() }
      state.opened[head] = key
    }
  }
}

/// Why a key ring cannot be used.
public struct KeyRingError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What is wrong, and in which line; no key is in it.
  public var reason: String
  public var description: String { "the key ring cannot be used: \(reason)" }
}
