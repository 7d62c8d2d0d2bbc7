//! The keys of a volume and the header that keeps them wrapped (volume format, sections 2 and 3).

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use sconify_shield::FileSystemKey;
use zeroize::Zeroizing;

use crate::error::{Result, VolumeError};
use crate::seal::{Sealer, Tag};
use crate::wire::Decoder;

const MAGIC: &[u8; 8] = b"SCNVOLM1";

/// The name of a volume: made at random when it is created, the same for ever after. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeId([u8; 16]);

impl VolumeId {
    /// Takes the bytes of the name.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for VolumeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VolumeId({self})")
    }
}

/// The first row of the database: names the volume and holds its data key, encrypted under the volume key.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) volume: VolumeId,
    /// How often the data key was wrapped anew.
    pub(crate) generation: u32,
    wrapped: Vec<u8>,
    tag: Tag,
}

impl Header {
    /// Makes the header and the data key of a new volume.
    pub(crate) fn create(key: &FileSystemKey) -> (Self, DataKey) {
        let random = SystemRandom::new();
        let (mut volume, mut bytes) = ([0; 16], Zeroizing::new([0; 32]));
        random
            .fill(&mut volume)
            .and_then(|()| random.fill(&mut *bytes))
            .expect("the operating system gives random bytes");
        let data_key = DataKey(bytes);
        (Self::wrap(VolumeId(volume), 0, key, &data_key), data_key)
    }

    /// Wraps the data key under another volume key.
    pub(crate) fn rewrap(&self, key: &FileSystemKey, data_key: &DataKey) -> Self {
        Self::wrap(self.volume, self.generation + 1, key, data_key)
    }

    fn wrap(volume: VolumeId, generation: u32, key: &FileSystemKey, data_key: &DataKey) -> Self {
        let (wrapped, tag) = wrapper(key, volume, generation).seal(generation.into(), &*data_key.0);
        Self {
            volume,
            generation,
            wrapped,
            tag,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            MAGIC.as_slice(),
            &self.volume.0,
            &self.generation.to_le_bytes(),
            &self.wrapped,
            &self.tag,
        ]
        .concat()
    }

    /// Reads a header; nothing of it is authentic before [`Header::unwrap`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new("the volume's header", bytes);
        if decoder.take(8)? != MAGIC {
            return Err(VolumeError::forged(
                "the volume's header",
                "it is of no volume, or of another version of the format",
            ));
        }
        let header = Self {
            volume: VolumeId(decoder.array()?),
            generation: decoder.u32()?,
            wrapped: decoder.take(crate::seal::SALT_SIZE + 32)?.to_vec(),
            tag: decoder.array()?,
        };
        decoder.end()?;
        Ok(header)
    }

    /// Returns the data key, or None if the volume key is another one or the header was changed.
    pub(crate) fn unwrap(&self, key: &FileSystemKey) -> Option<DataKey> {
        let text = wrapper(key, self.volume, self.generation)
            .open(self.generation.into(), &self.wrapped, &self.tag)
            .ok()?;
        let bytes = <[u8; 32]>::try_from(&*text).ok().map(Zeroizing::new);
        bytes.map(DataKey)
    }
}

fn wrapper(key: &FileSystemKey, volume: VolumeId, generation: u32) -> Sealer {
    let info: [&[u8]; 3] = [
        b"sconify volume v1 wrap",
        &volume.0,
        &generation.to_le_bytes(),
    ];
    Sealer::new("sconify volume v1 data key", &key.derive(&info))
}

/// The key under which everything in a volume is encrypted. It never changes; volume keys that wrap it may.
pub(crate) struct DataKey(Zeroizing<[u8; 32]>);

/// One key for each purpose.
pub(crate) struct Keys {
    pub(crate) chunks: Sealer,
    pub(crate) slots: Sealer,
    pub(crate) nodes: Sealer,
    pub(crate) superblock: Sealer,
    root: hmac::Key,
    names: hmac::Key,
}

impl Keys {
    pub(crate) fn derive(data_key: &DataKey) -> Self {
        let key = FileSystemKey::new(*data_key.0);
        let derive = |purpose: &str| key.derive(&[b"sconify volume v1 ", purpose.as_bytes()]);
        let mac = |purpose| hmac::Key::new(hmac::HMAC_SHA256, &*derive(purpose));
        Self {
            chunks: Sealer::new("sconify volume v1 chunk", &derive("chunk")),
            slots: Sealer::new("sconify volume v1 slot", &derive("slot")),
            nodes: Sealer::new("sconify volume v1 node", &derive("node")),
            superblock: Sealer::new("sconify volume v1 superblock", &derive("superblock")),
            root: mac("root"),
            names: mac("names"),
        }
    }

    /// The root of a state: a keyed hash of its superblock, which binds everything else.
    pub(crate) fn root(&self, superblock: &[u8]) -> [u8; 32] {
        let mut root = [0; 32];
        root.copy_from_slice(hmac::sign(&self.root, superblock).as_ref());
        root
    }

    /// A hash of a name in a directory, that nobody without the key can aim at: 55 bits.
    pub(crate) fn name_hash(&self, directory: u64, name: &[u8]) -> u64 {
        let mut context = hmac::Context::with_key(&self.names);
        context.update(&directory.to_le_bytes());
        context.update(name);
        let digest = context.sign();
        let first = digest.as_ref()[..8].try_into().expect("eight bytes");
        u64::from_le_bytes(first) >> 9
    }
}
