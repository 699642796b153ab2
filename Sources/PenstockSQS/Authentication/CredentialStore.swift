// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import Synchronization

/// The access keys that a server knows. They can be replaced while it runs.
public final class CredentialStore: Sendable {
  private struct State {
    var credentials: Credentials
    /// What a day's signatures of a key are made with. Named by the secret itself, so that an
    /// entry is right whatever the file says by now.
    var signingKeys: [SigningKeyName: SymmetricKey] = [:]
  }

  private struct SigningKeyName: Hashable {
    var secret: String
    var day: String
    var region: String
  }

  /// A key id has two days in use at most times, and eight with presigned URLs.
  package static let maximumSigningKeys = 1024

  private let partition: String
  private let account: String
  private let state: Mutex<State>

  /// - Parameters:
  ///   - text: the credentials file, in the format of the AWS shared credentials file.
  ///   - region: of the server; it decides the partition of users' and roles' names.
  ///   - account: of keys that name none, twelve digits.
  public init(
    parsing text: String, region: String, account: String
  ) throws(CredentialsError) {
    partition = SQSConfiguration.partition(of: region)
    self.account = account
    state = Mutex(
      State(
        credentials: try Credentials(
          parsing: text, partition: partition, defaultAccount: account)))
  }

  /// Nobody is known before `replace`.
  public init(region: String, account: String) {
    partition = SQSConfiguration.partition(of: region)
    self.account = account
    state = Mutex(State(credentials: .none))
  }

  /// Puts the keys of another text in place of all that were there. When it throws, they stay.
  /// Requests that are being checked end by the old or by the new keys.
  public func replace(parsing text: String) throws(CredentialsError) {
    let credentials = try Credentials(
      parsing: text, partition: partition, defaultAccount: account)
    state.withLock { $0 = State(credentials: credentials) }
  }

  /// How many keys there are.
  public var count: Int { state.withLock { $0.credentials.count } }

  /// The accounts that keys belong to, each once, in ascending order.
  public var accounts: [String] { state.withLock { $0.credentials }.accounts }

  package func credential(_ keyID: String) -> Credential? {
    state.withLock { $0.credentials[keyID] }
  }

  /// How many signing keys are held ready.
  package var signingKeyCount: Int { state.withLock { $0.signingKeys.count } }

  func signingKey(of credential: Credential, day: String, region: String) -> SymmetricKey {
    let name = SigningKeyName(secret: credential.secret, day: day, region: region)
    if let key = state.withLock({ $0.signingKeys[name] }) { return key }
    let key = SignatureV4.signingKey(secret: credential.secret, day: day, region: region)
    state.withLock {
      if $0.signingKeys.count >= Self.maximumSigningKeys { $0.signingKeys = [:] }
      $0.signingKeys[name] = key
    }
    return key
  }
}
